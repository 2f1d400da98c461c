//! [`Tracked`]: a state that stays with the host and is read and written by place. For
//! states that are too large to decode on each turn. Every write goes to the host at once,
//! so reads see it and a write that cannot be made fails where it stands.

use std::marker::PhantomData;
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host::{Flush, Host, Op};
use crate::{Actor, Failure, Pointer};

/// The state of the actor `A`, reached by place instead of decoded whole: the cost of a turn
/// follows what it touches, not what the state holds.
///
/// A method takes it in the place of `self`. Such methods mix freely with those on `self`.
/// As everywhere, a method that returns `Err` leaves no trace. In a streaming method
/// (`#[stream]`) subscribers see each change within the method's interval.
///
/// ```
/// use std::collections::BTreeMap;
/// use tidegate_sdk::prelude::*;
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// pub struct Sheet {
///     cells: BTreeMap<String, i64>,
///     log: Vec<String>,
/// }
///
/// #[actor]
/// impl Sheet {
///     pub fn bump(state: &mut Tracked<Self>, cell: String) -> Result<i64> {
///         let value = state.get(["cells", &cell])?.unwrap_or(0) + 1;
///         state.set(["cells", &cell], &value)?;
///         state.push(["log"], &format!("{cell} = {value}"))?;
///         Ok(value)
///     }
/// }
///
/// let mut sheet = Tracked::test(&Sheet::default());
/// assert_eq!(Sheet::bump(&mut sheet, "a/b".into()), Ok(1));
/// assert_eq!(Sheet::bump(&mut sheet, "a/b".into()), Ok(2));
/// assert_eq!(sheet.get::<Vec<String>>(["log"]).unwrap().unwrap().len(), 2);
/// ```
pub struct Tracked<A> {
    host: Rc<dyn Host>,
    /// Each change is fit to be seen as soon as it is staged.
    streams: bool,
    actor: PhantomData<fn() -> A>,
}

impl<A: Actor> Tracked<A> {
    pub(crate) fn new(host: Rc<dyn Host>) -> Self {
        Self {
            host,
            streams: false,
            actor: PhantomData,
        }
    }

    /// Of a streaming method.
    pub(crate) fn streaming(self) -> Self {
        Self {
            streams: true,
            ..self
        }
    }

    fn patch(&mut self, op: Op<'_>) -> Result<(), Failure> {
        self.host.patch(op)?;
        match self.streams {
            true => self.host.checkpoint(Flush::Due),
            false => Ok(()),
        }
    }

    /// The value at a place, `None` where there is none. Fails with `state.mismatch` when
    /// the value is not a `T`.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)]
    /// # struct Sheet { title: String, rows: Vec<i64> }
    /// # #[actor] impl Sheet {}
    /// # let mut state = Tracked::test(&Sheet { title: "T".into(), rows: vec![1, 2] });
    /// let second: Option<i64> = state.get(pointer!["rows", 1])?;
    /// assert_eq!(second, Some(2));
    /// assert_eq!(state.get::<i64>(pointer!["rows", 9])?, None);
    /// # Ok::<(), Failure>(())
    /// ```
    pub fn get<T: DeserializeOwned>(
        &self,
        place: impl Into<Pointer>,
    ) -> Result<Option<T>, Failure> {
        let place = place.into();
        let Some(text) = self.host.get(place.as_str()) else {
            return Ok(None);
        };
        crate::place::decode(&text).map(Some).map_err(|error| {
            crate::state::mismatch(A::NAME, &error).param("pointer", place.as_str())
        })
    }

    /// Puts a value at a place: replaces what is there, or adds a member to the object (an
    /// element to the end of the array) that would hold it. Fails with
    /// `state.no-such-place` when there is nothing that could hold it.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)]
    /// # struct Sheet { title: String, rows: Vec<i64> }
    /// # #[actor] impl Sheet {}
    /// # let mut state = Tracked::test(&Sheet { title: "T".into(), rows: vec![1, 2] });
    /// state.set(["title"], "Totals")?;
    /// state.set(pointer!["rows", 0], &7)?;
    /// assert_eq!(state.get::<Vec<i64>>(["rows"])?, Some(vec![7, 2]));
    /// # Ok::<(), Failure>(())
    /// ```
    pub fn set(
        &mut self,
        place: impl Into<Pointer>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<(), Failure> {
        let (place, value) = (place.into(), encode(value)?);
        let (pointer, value) = (place.as_str(), value.as_str());
        match self.patch(Op::Replace { pointer, value }) {
            Err(failure) if failure.code() == "state.no-such-place" => {
                self.patch(Op::Add { pointer, value })
            }
            result => result,
        }
    }

    /// Inserts a value before the array element at a place, whose last segment is its
    /// index.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)]
    /// # struct Sheet { title: String, rows: Vec<i64> }
    /// # #[actor] impl Sheet {}
    /// # let mut state = Tracked::test(&Sheet { title: "T".into(), rows: vec![1, 2] });
    /// state.insert(pointer!["rows", 1], &7)?;
    /// assert_eq!(state.get::<Vec<i64>>(["rows"])?, Some(vec![1, 7, 2]));
    /// # Ok::<(), Failure>(())
    /// ```
    pub fn insert(
        &mut self,
        place: impl Into<Pointer>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<(), Failure> {
        self.patch(Op::Add {
            pointer: place.into().as_str(),
            value: &encode(value)?,
        })
    }

    /// Removes what is at a place, which must exist.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)]
    /// # struct Sheet { title: String, rows: Vec<i64> }
    /// # #[actor] impl Sheet {}
    /// # let mut state = Tracked::test(&Sheet { title: "T".into(), rows: vec![1, 2] });
    /// state.remove(pointer!["rows", 0])?;
    /// assert_eq!(state.get::<Vec<i64>>(["rows"])?, Some(vec![2]));
    /// # Ok::<(), Failure>(())
    /// ```
    pub fn remove(&mut self, place: impl Into<Pointer>) -> Result<(), Failure> {
        self.patch(Op::Remove {
            pointer: place.into().as_str(),
        })
    }

    /// Adds a value to the end of the array at a place.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)]
    /// # struct Sheet { title: String, rows: Vec<i64> }
    /// # #[actor] impl Sheet {}
    /// # let mut state = Tracked::test(&Sheet { title: "T".into(), rows: vec![1, 2] });
    /// state.push(["rows"], &7)?;
    /// assert_eq!(state.get::<Vec<i64>>(["rows"])?, Some(vec![1, 2, 7]));
    /// # Ok::<(), Failure>(())
    /// ```
    pub fn push(
        &mut self,
        array: impl Into<Pointer>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<(), Failure> {
        self.insert(array.into().join("-"), value)
    }

    /// Adds text to the end of the string at a place. Its cost does not grow with the string.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)]
    /// # struct Sheet { title: String, rows: Vec<i64> }
    /// # #[actor] impl Sheet {}
    /// # let mut state = Tracked::test(&Sheet { title: "T".into(), rows: vec![1, 2] });
    /// state.append(["title"], "able")?;
    /// assert_eq!(state.get::<String>(["title"])?.as_deref(), Some("Table"));
    /// # Ok::<(), Failure>(())
    /// ```
    pub fn append(&mut self, string: impl Into<Pointer>, text: &str) -> Result<(), Failure> {
        self.patch(Op::Append {
            pointer: string.into().as_str(),
            text,
        })
    }
}

fn encode(value: &(impl Serialize + ?Sized)) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(crate::state::malformed)
}
