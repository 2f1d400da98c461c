//! What a handler's source file imports: `use tidegate_sdk::prelude::*;`.

pub use crate::{Actor, Context, Event, Failure, Pointer, Result, Tracked, actor, pointer};
pub use schemars::JsonSchema;
pub use serde::{Deserialize, Serialize};
