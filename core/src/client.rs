//! Who asks, and which request it is.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::call::{maybe_text, text};

/// Who sent something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The id of the WebSocket connection; none over plain HTTP.
    #[serde(with = "maybe_text", default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Arc<str>>,
    /// Verified claims as a JSON object.
    #[serde(with = "maybe_text", default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
}

/// Names one request through the log, from the door to the handler's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RequestId {
    /// A call on a WebSocket: the connection's id and the call's.
    Frame {
        /// The connection.
        #[serde(with = "text")]
        connection: Arc<str>,
        /// The call's id, as the client chose it.
        #[serde(with = "text")]
        id: Arc<str>,
    },
    /// An HTTP request: what its `x-request-id` says.
    Http(#[serde(with = "text")] Arc<str>),
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A client's text: quotes and control characters stay what they are.
            RequestId::Frame { connection, id } => {
                write!(f, "{connection}/{}", id.escape_debug())
            }
            RequestId::Http(id) => f.write_str(id),
        }
    }
}
