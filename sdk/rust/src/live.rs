//! [`Live`]: the decoded state of a streaming method. What the method changes is staged and
//! declared fit to be seen ([`checkpoint`](Host::checkpoint)) by the time it waits for
//! anything, since it can only wait through the [`Context`] that the state hands out.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::actor::Actor;
use crate::host::{Flush, Host};
use crate::state::Decoded;
use crate::{Context, Failure};

/// The state of the actor `A` in a streaming method (`#[stream]`), whose changes subscribers
/// see while the method runs.
///
/// It is used like `&mut self`: read its fields, assign to them, call the methods of `A`. The
/// turn's [`Context`] comes from it, [`ctx`](Self::ctx): taking the context stages what has
/// changed, so whatever the method then waits for, subscribers see the change within the
/// method's interval. While the method computes, what it has changed is staged at the first
/// change that comes an interval later.
///
/// Staging encodes the whole state. For a large one, or a text that grows, stream a
/// [`Tracked`](crate::Tracked) state: it stages what it changes and nothing else.
///
/// ```
/// use tidegate_sdk::prelude::*;
/// use tidegate_sdk::test;
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// struct Oven { status: String, degrees: u32 }
///
/// #[actor]
/// impl Oven {
///     #[stream(interval = "100ms")]
///     pub fn heat(state: &mut Live<Self>, to: u32) -> Result<()> {
///         state.status = "heating".into();
///         while state.degrees < to {
///             state.ctx().sleep(secs(1))?;
///             state.degrees += 100;
///         }
///         state.status = "hot".into();
///         Ok(())
///     }
/// }
///
/// let mut oven = test::Actor::<Oven>::new("a");
/// oven.invoke("heat", test::json!({"to": 200})).unwrap();
/// let seen: Vec<(u64, String)> = oven
///     .updates()
///     .iter()
///     .map(|update| (update.at(), format!("{} {}", update.state()["status"], update.state()["degrees"])))
///     .collect();
/// assert_eq!(seen, [
///     (100, r#""heating" 0"#.to_owned()),
///     (1_000, r#""heating" 100"#.to_owned()),
///     (2_000, r#""hot" 200"#.to_owned()),
/// ]);
/// ```
pub struct Live<A> {
    state: Box<Decoded<A>>,
    context: Context<A>,
    /// When the method first may have changed something since it was last staged.
    changed_at: Option<Duration>,
    interval: Duration,
}

impl<A: Actor> Live<A> {
    pub(crate) fn new(state: Box<Decoded<A>>, context: Context<A>, interval: Duration) -> Self {
        Self {
            state,
            context,
            changed_at: None,
            interval,
        }
    }

    pub(crate) fn into_parts(self) -> (Box<Decoded<A>>, Context<A>) {
        (self.state, self.context)
    }

    /// The state and the context, for what runs ahead of the method and changes nothing.
    #[doc(hidden)]
    pub fn parts(&mut self) -> (&A, &mut Context<A>) {
        (&self.state.value, &mut self.context)
    }

    /// The turn: who called, the way to emit, to wait, to call others. What was changed so
    /// far is staged first, so that subscribers see it while the method waits.
    ///
    /// What cannot be staged fails the turn: the context then refuses to wait.
    pub fn ctx(&mut self) -> &mut Context<A> {
        self.stage();
        &mut self.context
    }

    fn stage(&mut self) {
        if self.changed_at.take().is_some() && !self.context.has_failed() {
            let staged = stage(&mut self.state, &*self.context.host());
            self.context.note(staged);
        }
    }
}

fn stage<A: Actor>(state: &mut Decoded<A>, host: &dyn Host) -> Result<(), Failure> {
    if state.stage(host)? {
        host.checkpoint(Flush::Due)?;
    }
    Ok(())
}

impl<A: Actor> Deref for Live<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.state.value
    }
}

impl<A: Actor> DerefMut for Live<A> {
    fn deref_mut(&mut self) -> &mut A {
        let now = self.context.host().clock();
        if self.changed_at.is_some_and(|at| now >= at + self.interval) {
            self.stage();
        }
        self.changed_at.get_or_insert(now);
        &mut self.state.value
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::{Value, json};

    use super::*;
    use crate::prelude::*;
    use crate::recorder::Recorder;

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Tally {
        n: u32,
        names: Vec<String>,
    }

    #[actor]
    impl Tally {
        pub fn finish(&mut self) {}
    }

    fn live(host: &Rc<Recorder>) -> Live<Tally> {
        host.begin(Some(50));
        let state = Decoded::load(&**host, "test").unwrap();
        let turn = Context::<Tally>::test().turn().clone();
        let context = Context::new(Rc::clone(host) as Rc<dyn Host>, turn).streaming();
        Live::new(state, context, millis(50))
    }

    fn host() -> Rc<Recorder> {
        Rc::new(Recorder::new(json!({"n": 0, "names": []})))
    }

    fn replaces(host: &Recorder) -> usize {
        host.with(|recording| recording.replaces)
    }

    fn seen(host: &Recorder) -> Vec<(u64, Value)> {
        host.with(|recording| recording.updates.clone())
            .into_iter()
            .map(|(at, state)| (at, state["n"].clone()))
            .collect()
    }

    #[test]
    fn taking_the_context_stages_what_has_changed() {
        let host = host();
        let mut state = live(&host);
        state.n = 1;
        state.names.push("Ann".to_owned());
        assert_eq!(host.state()["n"], 0);
        state.ctx();
        assert_eq!(host.state(), json!({"n": 1, "names": ["Ann"]}));
        assert_eq!(replaces(&host), 1);
    }

    #[test]
    fn what_has_not_changed_is_not_staged() {
        let host = host();
        let mut state = live(&host);
        assert_eq!((state.n, state.names.len()), (0, 0));
        state.ctx();
        state.n = 0;
        state.ctx().sleep(secs(1)).unwrap();
        assert_eq!((replaces(&host), seen(&host).len()), (0, 0));
    }

    #[test]
    fn a_change_is_seen_while_the_method_waits() {
        let host = host();
        let mut state = live(&host);
        state.n = 1;
        state.ctx().sleep(secs(5)).unwrap();
        assert_eq!(seen(&host), [(50, json!(1))]);
    }

    #[test]
    fn a_method_that_computes_is_seen_once_per_interval() {
        let host = host();
        let mut state = live(&host);
        for n in 1..=100 {
            state.n = n;
            host.with(|recording| recording.now += 10);
        }
        assert_eq!(
            seen(&host)[..3],
            [(50, json!(5)), (100, json!(10)), (150, json!(15))]
        );
        assert_eq!(replaces(&host), seen(&host).len());
    }

    #[test]
    fn changes_after_a_wait_are_seen_together() {
        let host = host();
        let mut state = live(&host);
        state.ctx().sleep(secs(5)).unwrap();
        state.n = 1;
        state.names.push("Ann".to_owned());
        assert_eq!(replaces(&host), 0);
    }

    #[test]
    fn what_is_set_in_passing_is_seen_too() {
        let host = host();
        let began = host.with(|recording| recording.savepoint());
        let mut state = live(&host);
        state.ctx().after(secs(9)).finish();
        state.ctx().sleep(millis(60)).unwrap();
        host.roll_back(began);
        let timers = host.with(|recording| recording.timers.len());
        assert_eq!(timers, 1, "the tick has committed it");
    }

    #[test]
    fn a_commit_that_fails_ends_all_waiting() {
        let host = host();
        let mut state = live(&host);
        host.with(|recording| recording.is_broken = true);
        state.n = 1;
        let failure = state.ctx().sleep(secs(5)).unwrap_err();
        assert_eq!(failure.code(), "store.unavailable");
        assert!(state.ctx().cancelled());
        state.n = 2;
        assert!(state.ctx().chunk("…").is_err());
        let (_, mut context) = state.into_parts();
        assert!(context.take_failure().is_err());
        assert_eq!(replaces(&host), 1, "nothing is staged any more");
    }
}
