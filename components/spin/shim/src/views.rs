//! Who may see an actor, and what of it: asks the handler's guard, about the last committed
//! state. Nothing here waits for a turn.

use std::borrow::Cow;
use std::rc::Rc;

use tidegate_core::manifest::{Access, Recheck};
use tidegate_core::turn::views;
use tidegate_core::{ActorKey, Failure, Json, patch};
use tidegate_spin_base::look;

use crate::bindings::exports::tidegate::spin::control::{Looking, Question, Subject, View};
use crate::bindings::tidegate::realtime::types as wit;
use crate::guest;
use crate::rows;
use crate::stage::{self, Given, LIMITS, Listener, Mode, Request, Stage, Time};
use crate::turn;

/// What somebody sees.
pub(crate) struct Seen {
    /// The state as JSON text, if it was to be told.
    pub(crate) state: Option<String>,
    /// Which history.
    pub(crate) epoch: String,
    /// Where in it.
    pub(crate) version: u64,
    /// A guard says what each of them sees.
    pub(crate) projected: bool,
    /// A guard says who may see.
    pub(crate) guarded: bool,
    /// It is asked again some time after a commit, and not before that is told.
    pub(crate) recheck_later: bool,
    /// What the outbox held last.
    pub(crate) seq: u64,
}

/// Whether a client may see this much of an actor, and, if it is to be told, the state.
pub(crate) async fn look(
    request: &Rc<Request>,
    key: &ActorKey,
    question: &look::Question,
) -> Result<Seen, Failure> {
    let declared = request.declared.clone();
    let loaded = rows::load(&request.database, key)?;
    let state = turn::state_of(&loaded, &declared)?;
    // Without a word all functions decide, should there be any.
    let all = Access {
        authorize: true,
        project: true,
    };
    let access = declared.access.unwrap_or(all);
    let hidden = declared.state.hidden.clone();
    let recheck_later = declared.recheck == Recheck::Later;
    let (epoch, version) = (loaded.place.epoch.clone(), loaded.place.version);
    stage::enter(Stage::new(Given {
        request: request.clone(),
        key: key.clone(),
        declared,
        place: loaded.place,
        state: state.clone(),
        chain: Vec::new(),
        traceparent: None,
        listener: Listener::Nobody,
        keyed: None,
        time: Time::new(u64::MAX, None, &request.database),
        streaming: None,
        fired: None,
        mode: Mode::Look,
    }));
    let who = wit::Client {
        connection: None,
        user: question.user.clone(),
    };
    let told = Told {
        state: &state,
        hidden: &hidden,
    };
    let decided = decide(request, key, access, who, question, told).await;
    stage::leave();
    let is_guarded = !request.is_unguarded.get();
    let shown = decided?;
    Ok(Seen {
        state: shown.map(|shown| shown.to_text()),
        epoch,
        version,
        projected: access.project && is_guarded,
        guarded: access.authorize && is_guarded,
        recheck_later,
        seq: loaded.seq,
    })
}

/// What there is to be told.
#[derive(Clone, Copy)]
struct Told<'s> {
    state: &'s Json,
    hidden: &'s [String],
}

impl<'s> Told<'s> {
    fn whole(self) -> Cow<'s, Json> {
        patch::strip_hidden(self.state, self.hidden)
    }
}

async fn decide<'s>(
    request: &Request,
    key: &ActorKey,
    access: Access,
    who: wit::Client,
    question: &look::Question,
    told: Told<'s>,
) -> Result<Option<Cow<'s, Json>>, Failure> {
    if access.authorize {
        let to = match question.subject {
            look::Subject::State => Subject::State,
            look::Subject::Events => Subject::Events,
        };
        let this = key.into();
        let who = who.clone();
        guest::authorize(Question { this, who, to }).await?;
    }
    if !question.tell {
        return Ok(None);
    }
    if !access.project || request.is_unguarded.get() {
        return Ok(Some(told.whole()));
    }
    let this = key.into();
    Ok(Some(match guest::project(Looking { this, who }).await? {
        View::Whole => told.whole(),
        View::Nothing => Cow::Owned(Json::Null),
        View::Document(document) => {
            let own = views::own(&document, told.hidden, LIMITS.state_memory_bytes);
            Cow::Owned(own.map_err(|failure| {
                tidegate_spin_base::log!("{key}: {failure}");
                Failure::guard_undecided()
            })?)
        }
    }))
}
