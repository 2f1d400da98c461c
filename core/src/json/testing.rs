//! Values in the code of tests.

/// `serde_json::json!`, as a [`Json`](super::Json); members stand in the order of their names.
macro_rules! json {
    ($($text:tt)+) => { $crate::json::Json::from(serde_json::json!($($text)+)) };
}

pub(crate) use json;
