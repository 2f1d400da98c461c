//! Who may see what: `#[authorize]` and `#[project]`, asked beside the actor's turns for a
//! batch of clients at a time. The state is loaded once per batch; whatever goes wrong shows
//! less, never more.

use std::collections::HashMap;
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::actor::Look;
use crate::context::Client;
use crate::host::Host;
use crate::state::Decoded;
use crate::{Actor, Failure, Tracked};

/// What somebody wants to subscribe to, or to read once.
///
/// ```
/// use tidegate_sdk::{Subject, prelude::*};
///
/// fn may_listen_only(who: &Subscriber) -> Result<()> {
///     match who.subject() {
///         Subject::Events => Ok(()),
///         Subject::State => Err(Failure::new("room.closed").status(403)),
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The state and its patches.
    State,
    /// The events.
    Events,
}

/// Somebody who wants to subscribe to an actor, or to read its state: what `#[authorize]`
/// decides about.
///
/// The host asks again about those who subscribe already: after each change of the state, before
/// anything of it is sent, when a client's token is renewed, and when the component is replaced. A
/// subscription that is then refused ends. `#[authorize(recheck = "later")]` has it ask some time
/// after a change (a second, unless it is configured otherwise): cheaper, but who was shut out is
/// still told what changes until then.
///
/// ```
/// use tidegate_sdk::{Subject, prelude::*};
/// use tidegate_sdk::test::{self, json};
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// struct Diary { owner: String }
///
/// #[derive(Deserialize)]
/// struct Claims { sub: String }
///
/// #[actor]
/// impl Diary {
///     #[authorize]
///     fn may_read(&self, who: &Subscriber) -> Result<()> {
///         match who.user::<Claims>()? {
///             Some(claims) if claims.sub == self.owner => Ok(()),
///             _ => Err(Failure::new("diary.private").status(403)),
///         }
///     }
/// }
///
/// let mut diary = test::Actor::<Diary>::new("ann");
/// diary.set_state(json!({"owner": "ann"}));
/// assert!(diary.user(json!({"sub": "ann"})).may_subscribe(Subject::State).is_ok());
/// let refused = diary.may_subscribe(Subject::Events).unwrap_err();
/// assert_eq!(refused.code(), "diary.private");
/// ```
#[derive(Debug, Clone)]
pub struct Subscriber {
    viewer: Viewer,
    subject: Subject,
}

impl Subscriber {
    pub(crate) fn new(viewer: Viewer, subject: Subject) -> Self {
        Self { viewer, subject }
    }

    /// To what.
    pub fn subject(&self) -> Subject {
        self.subject
    }

    /// The id of the actor: `room-1` for `chat/room-1`.
    pub fn id(&self) -> &str {
        self.viewer.id()
    }

    /// Who asks.
    pub fn client(&self) -> &Client {
        self.viewer.client()
    }

    /// The id of the WebSocket connection; `None` for a plain HTTP request or event stream.
    pub fn connection(&self) -> Option<&str> {
        self.viewer.connection()
    }

    /// The verified claims of the client's token, as in
    /// [`Context::user`](crate::Context::user).
    pub fn user<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        self.viewer.user()
    }
}

/// Somebody who subscribes to an actor's state, or reads it: for whom `#[project]` makes a
/// [`View`].
#[derive(Debug, Clone)]
pub struct Viewer {
    actor_id: Rc<str>,
    client: Client,
}

impl Viewer {
    pub(crate) fn new(actor_id: Rc<str>, client: Client) -> Self {
        Self { actor_id, client }
    }

    /// The id of the actor: `room-1` for `chat/room-1`.
    pub fn id(&self) -> &str {
        &self.actor_id
    }

    /// Who looks.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The id of the WebSocket connection; `None` for a plain HTTP request or event stream.
    pub fn connection(&self) -> Option<&str> {
        self.client.connection.as_deref()
    }

    /// The verified claims of the client's token, as in
    /// [`Context::user`](crate::Context::user).
    pub fn user<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        self.client.user()
    }
}

/// What somebody sees of an actor's state: what `#[project]` returns, or the `Ok` of what it
/// returns.
///
/// The host asks again after each change of the state, before it sends anything of it, so a
/// view may follow what the state says of who may see what.
///
/// Clients that are shown equal documents are one group: the SDK finds them, and the host
/// encodes each change once per group.
///
/// ```
/// use tidegate_sdk::prelude::*;
/// use tidegate_sdk::test::{self, json};
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// struct Poll { author: String, votes: Vec<String> }
///
/// #[derive(Serialize)]
/// struct Result { votes: usize }
///
/// #[derive(Deserialize)]
/// struct Claims { sub: String }
///
/// #[actor]
/// impl Poll {
///     #[project]
///     fn view(&self, who: &Viewer) -> View {
///         match who.user::<Claims>() {
///             Ok(Some(claims)) if claims.sub == self.author => View::Whole,
///             Ok(Some(_)) => View::of(&Result { votes: self.votes.len() }),
///             _ => View::Nothing,
///         }
///     }
/// }
///
/// let mut poll = test::Actor::<Poll>::new("a");
/// poll.set_state(json!({"author": "ann", "votes": ["ben", "cem"]}));
/// assert_eq!(poll.user(json!({"sub": "ann"})).view(), Some(poll.state()));
/// assert_eq!(poll.user(json!({"sub": "ben"})).view(), Some(json!({"votes": 2})));
/// assert_eq!(poll.view(), None);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum View {
    /// All of it, but for hidden members.
    Whole,
    /// Nothing: `null` in the place of the state.
    Nothing,
    /// What [`View::of`] made.
    #[doc(hidden)]
    Document(Document),
}

/// A document in the place of the state, or why there is none.
#[derive(Debug, Clone)]
pub struct Document(Result<String, String>);

impl View {
    /// This document in the place of the state, but for top-level members that the actor hides.
    /// One that JSON cannot express shows nothing, and a line in the log says why.
    pub fn of(document: &(impl Serialize + ?Sized)) -> Self {
        let text = serde_json::to_string(document);
        Self::Document(Document(text.map_err(|error| error.to_string())))
    }
}

/// What one client of a batch is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    Whole,
    Document(String),
    /// What the client at this place of the batch is shown.
    SameAs(u32),
    Nothing,
}

/// Decides about a batch of subscribers of the actor with this id.
pub(crate) type Authorize = fn(Rc<dyn Host>, &str, &[Subscriber]) -> Vec<Result<(), Failure>>;
/// What each of a batch of viewers of the actor with this id is shown.
pub(crate) type Project = fn(Rc<dyn Host>, &str, &[Viewer]) -> Vec<Shown>;

/// Decides about a batch, in its order.
pub(crate) fn authorize<A: Actor>(
    host: Rc<dyn Host>,
    id: &str,
    who: &[Subscriber],
) -> Vec<Result<(), Failure>> {
    let Some(look) = A::AUTHORIZE else {
        return vec![Ok(()); who.len()];
    };
    decide(host, id, &look, who).unwrap_or_else(|failure| {
        eprintln!("{}/{id} refuses all subscribers: {failure}", A::NAME);
        vec![Err(failure); who.len()]
    })
}

/// What each of a batch is shown, in its order.
pub(crate) fn project<A: Actor>(host: Rc<dyn Host>, id: &str, who: &[Viewer]) -> Vec<Shown> {
    let Some(look) = A::PROJECT else {
        return vec![Shown::Whole; who.len()];
    };
    match decide(host, id, &look, who) {
        Ok(views) => group(views, |reason| {
            eprintln!("{}/{id} shows somebody nothing: {reason}", A::NAME);
        }),
        Err(failure) => {
            eprintln!("{}/{id} shows nobody anything: {failure}", A::NAME);
            vec![Shown::Nothing; who.len()]
        }
    }
}

fn decide<A: Actor, W, R>(
    host: Rc<dyn Host>,
    id: &str,
    look: &Look<A, W, R>,
    who: &[W],
) -> Result<Vec<Result<R, Failure>>, Failure> {
    match look {
        Look::Read(decide) => {
            let state = Decoded::load(&*host, id)?;
            let decisions = who.iter().map(|who| decide(&state.value, who)).collect();
            state.keep();
            Ok(decisions)
        }
        Look::Tracked(decide) => {
            let state = Tracked::new(host);
            Ok(who.iter().map(|who| decide(&state, who)).collect())
        }
    }
}

/// Finds equal documents. Says once per batch why somebody is shown nothing: a mistake tends
/// to concern everybody.
fn group(views: Vec<Result<View, Failure>>, log: impl FnOnce(String)) -> Vec<Shown> {
    let mut first: HashMap<String, u32> = HashMap::new();
    let mut mistake = None;
    let mut places = 0..;
    let shown = views
        .into_iter()
        .map(|view| {
            let place = places.next().unwrap_or(u32::MAX);
            match view {
                Ok(View::Whole) => Shown::Whole,
                Ok(View::Nothing) => Shown::Nothing,
                Ok(View::Document(Document(Ok(text)))) => match first.get(&text) {
                    Some(place) => Shown::SameAs(*place),
                    None => {
                        first.insert(text.clone(), place);
                        Shown::Document(text)
                    }
                },
                Ok(View::Document(Document(Err(error)))) => {
                    mistake = Some(format!("the view is not JSON: {error}"));
                    Shown::Nothing
                }
                Err(failure) => {
                    mistake = Some(failure.to_string());
                    Shown::Nothing
                }
            }
        })
        .collect();
    if let Some(mistake) = mistake {
        log(mistake);
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::prelude::*;
    use crate::recorder::Recorder;

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Hall {
        guests: Vec<String>,
    }

    #[derive(Deserialize)]
    struct Claims {
        sub: String,
    }

    impl Hall {
        fn has(&self, client: &Client) -> Result<bool> {
            let claims: Option<Claims> = client.user()?;
            Ok(claims.is_some_and(|claims| self.guests.contains(&claims.sub)))
        }
    }

    #[actor]
    impl Hall {
        #[authorize]
        fn may_see(&self, who: &Subscriber) -> Result<()> {
            if self.has(who.client())? && who.subject() == Subject::State {
                return Ok(());
            }
            Err(Failure::new("hall.closed"))
        }

        #[project]
        fn view(&self, who: &Viewer) -> Result<View> {
            if !self.has(who.client())? {
                return Ok(View::Nothing);
            }
            Ok(match who.connection() {
                None => View::Whole,
                Some("odd") => View::of(&BTreeMap::from([(vec![1], 2)])),
                Some(connection) => View::of(&connection[..1]),
            })
        }
    }

    /// Decides by place.
    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Gate {
        open: bool,
    }

    #[actor]
    impl Gate {
        #[authorize]
        fn may_see(state: &Tracked<Self>) -> Result<()> {
            match state.get(["open"])? {
                Some(true) => Ok(()),
                _ => Err(Failure::new("gate.closed")),
            }
        }
    }

    fn viewer(connection: Option<&str>, user: Option<Value>) -> Viewer {
        let client = Client {
            connection: connection.map(str::to_owned),
            user: user.map(|claims| claims.to_string()),
        };
        Viewer::new("main".into(), client)
    }

    fn ann(connection: Option<&str>) -> Viewer {
        viewer(connection, Some(json!({"sub": "ann"})))
    }

    fn hall() -> Rc<Recorder> {
        Rc::new(Recorder::new(json!({"guests": ["ann"]})))
    }

    fn codes(decisions: Vec<Result<()>>) -> Vec<Result<(), String>> {
        let code = |failure: Failure| failure.code().to_owned();
        decisions.into_iter().map(|d| d.map_err(code)).collect()
    }

    #[test]
    fn a_batch_is_decided_in_order_with_the_state_decoded_once() {
        let host = hall();
        let who = [
            Subscriber::new(viewer(Some("c1"), None), Subject::State),
            Subscriber::new(ann(None), Subject::State),
            Subscriber::new(ann(Some("c2")), Subject::Events),
            Subscriber::new(viewer(None, Some(json!({"id": 7}))), Subject::State),
        ];
        for _ in 0..2 {
            let decided = authorize::<Hall>(Rc::clone(&host) as _, "main", &who);
            let closed = || Err("hall.closed".to_owned());
            assert_eq!(
                codes(decided),
                [closed(), Ok(()), closed(), Err("user.mismatch".to_owned())]
            );
        }
        assert_eq!(host.with(|recording| recording.reads), 1);
    }

    #[test]
    fn equal_documents_are_one_group() {
        let who = [
            ann(Some("a1")),
            viewer(Some("a2"), None),
            ann(None),
            ann(Some("b1")),
            ann(Some("a3")),
            ann(Some("b2")),
            ann(None),
        ];
        assert_eq!(
            project::<Hall>(hall(), "main", &who),
            [
                Shown::Document(r#""a""#.to_owned()),
                Shown::Nothing,
                Shown::Whole,
                Shown::Document(r#""b""#.to_owned()),
                Shown::SameAs(0),
                Shown::SameAs(3),
                Shown::Whole,
            ]
        );
    }

    #[test]
    fn a_mistake_shows_nothing_to_whom_it_concerns() {
        let who = [
            ann(Some("odd")),
            viewer(None, Some(json!({"id": 7}))),
            ann(None),
        ];
        assert_eq!(
            project::<Hall>(hall(), "main", &who),
            [Shown::Nothing, Shown::Nothing, Shown::Whole]
        );
    }

    #[test]
    fn why_somebody_is_shown_nothing_is_logged_once() {
        let mut lines = Vec::new();
        let views = vec![
            Err(Failure::new("hall.dark")),
            Ok(View::Whole),
            Err(Failure::new("hall.dark")),
        ];
        group(views, |line| lines.push(line));
        assert_eq!(lines, ["hall.dark"]);
        group(vec![Ok(View::Nothing)], |line| panic!("{line}"));
    }

    #[test]
    fn a_state_that_does_not_fit_shows_nobody_anything() {
        let host = Rc::new(Recorder::new(json!({"guests": "ann"})));
        let who = [Subscriber::new(ann(None), Subject::State)];
        let decided = authorize::<Hall>(Rc::clone(&host) as _, "main", &who);
        assert_eq!(codes(decided), [Err("state.mismatch".to_owned())]);
        assert_eq!(
            project::<Hall>(host, "main", &[ann(None), ann(None)]),
            [Shown::Nothing, Shown::Nothing]
        );
    }

    #[test]
    fn a_guard_may_read_by_place() {
        let host = Rc::new(Recorder::new(json!({"open": false})));
        let who = [Subscriber::new(ann(None), Subject::State)];
        let ask = || codes(authorize::<Gate>(Rc::clone(&host) as _, "main", &who));
        assert_eq!(ask(), [Err("gate.closed".to_owned())]);
        host.set_state(json!({"open": true}));
        assert_eq!(ask(), [Ok(())]);
        assert_eq!(host.with(|recording| recording.reads), 0);
    }

    #[test]
    fn without_a_guard_everything_is_open() {
        let host = Rc::new(Recorder::new(json!({"open": false})));
        let shown = project::<Gate>(host, "main", &[viewer(None, None)]);
        assert_eq!(shown, [Shown::Whole]);
    }

    #[test]
    fn states_of_several_actors_are_kept_beside_each_other() {
        let hosts = [hall(), hall(), hall()];
        let who = [ann(None)];
        for _ in 0..3 {
            for (id, host) in ["a", "b", "c"].into_iter().zip(&hosts) {
                let shown = project::<Hall>(Rc::clone(host) as _, id, &who);
                assert_eq!(shown, [Shown::Whole]);
            }
        }
        for host in &hosts {
            assert_eq!(host.with(|recording| recording.reads), 1);
        }
    }
}
