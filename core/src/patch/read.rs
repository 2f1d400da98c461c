//! Operations from text.

use serde::{Deserialize, Deserializer};

use super::PatchOp;
use crate::json::Json;

/// The members of an operation, whichever it is.
#[derive(Deserialize)]
struct Members {
    op: Kind,
    path: String,
    /// Twice optional, since `null` is a value.
    #[serde(default, deserialize_with = "present")]
    value: Option<Json>,
    pos: Option<usize>,
    #[serde(rename = "str")]
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Add,
    Replace,
    Remove,
    #[serde(rename = "str_ins")]
    StrIns,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

impl<'de> Deserialize<'de> for PatchOp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PatchOp, D::Error> {
        use serde::de::Error;
        let Members {
            op,
            path,
            value,
            pos,
            text,
        } = Members::deserialize(deserializer)?;
        let value = || value.ok_or_else(|| D::Error::missing_field("value"));
        Ok(match op {
            Kind::Add => PatchOp::Add {
                path,
                value: value()?,
            },
            Kind::Replace => PatchOp::Replace {
                path,
                value: value()?,
            },
            Kind::Remove => PatchOp::Remove { path },
            Kind::StrIns => PatchOp::StrIns {
                path,
                pos: pos.ok_or_else(|| D::Error::missing_field("pos"))?,
                text: text.ok_or_else(|| D::Error::missing_field("str"))?,
            },
        })
    }
}
