//! Tells apart what a method may return: `T`, `()`, `Result<T, E>` and `Result<(), E>`. The
//! code that `#[actor]` writes calls `.split()` and `.encode()` (or `.schema()`): an inherent
//! method of a special case wins over the trait method of the same name, so aliases of
//! `Result` work too and no type is guessed from its name.

use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::Serialize;

use crate::Failure;
use crate::actor::Outcome;
use crate::schema::{self, Document};

/// A value that a method returned.
pub struct Returned<T>(pub T);

impl<T, E> Returned<Result<T, E>> {
    /// The value, or why there is none.
    pub fn split(self) -> Result<T, Failure>
    where
        E: Into<Failure>,
    {
        self.0.map_err(Into::into)
    }
}

impl Returned<()> {
    /// No result.
    pub fn encode(self) -> Outcome {
        Ok(None)
    }
}

/// The common case: a method that cannot fail.
pub trait ReturnedAny<T> {
    /// The value.
    fn split(self) -> Result<T, Failure>;
    /// The value as JSON text.
    fn encode(self) -> Outcome
    where
        T: Serialize;
}

impl<T> ReturnedAny<T> for Returned<T> {
    fn split(self) -> Result<T, Failure> {
        Ok(self.0)
    }

    fn encode(self) -> Outcome
    where
        T: Serialize,
    {
        crate::state::encode_output(&self.0)
    }
}

/// The type that a method returns.
pub struct Returns<T>(PhantomData<T>);

impl<T> Returns<T> {
    /// The type itself, as a value.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Returns<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, E> Returns<Result<T, E>> {
    /// Whether it is a `Result`.
    pub const IS_RESULT: bool = true;

    /// The type of the value.
    pub fn split(self) -> Returns<T> {
        Returns::new()
    }
}

impl Returns<()> {
    /// No schema: there is no result.
    pub fn schema(self) -> Option<Document> {
        None
    }
}

/// The common case, of the type.
pub trait ReturnsAny<T> {
    /// Whether it is a `Result`.
    const IS_RESULT: bool = false;
    /// The type of the value.
    fn split(self) -> Returns<T>;
    /// Its schema.
    fn schema(self) -> Option<Document>
    where
        T: JsonSchema;
}

impl<T> ReturnsAny<T> for Returns<T> {
    fn split(self) -> Returns<T> {
        Returns::new()
    }

    fn schema(self) -> Option<Document>
    where
        T: JsonSchema,
    {
        Some(schema::of::<T>())
    }
}
