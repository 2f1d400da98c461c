//! The journal from outside: in use, opened again, after crashes, and against a model.

mod crashes;
mod model;
mod opening;
mod use_of;
