//! What a handler's source file imports: `use tidegate_sdk::prelude::*;`.

pub use crate::{Actor, Call, Context, Event, Failure, Pointer, Result, Tracked, actor, pointer};
pub use crate::{Invocation, Live, TimerId, TimerOptions, millis, minutes, secs};
pub use crate::{Stored, Subscriber, View, Viewer, self_test};
pub use schemars::JsonSchema;
pub use serde::{Deserialize, Serialize};
