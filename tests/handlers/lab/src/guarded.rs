//! Actors that decide who may call and who may see. `vault` goes by claims and by its state,
//! and misbehaves on demand; `gate` decides by place, without decoding its state; `lobby` is asked
//! again some time after it has changed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tidegate_sdk::prelude::*;
use tidegate_sdk::{Client, Subject};

/// A secret with an owner: the first user who claims it.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Vault {
    owner: Option<String>,
    admitted: BTreeSet<String>,
    secret: String,
    /// Everybody with a token may hear its events.
    loud: bool,
    /// What its guards do instead of deciding.
    mood: Mood,
    /// What nobody is shown.
    combination: u32,
}

/// What a guard does.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Mood {
    /// It decides.
    #[default]
    Calm,
    /// `#[authorize]` computes for so long, then decides.
    SlowToAuthorize {
        /// For how many milliseconds.
        ms: u32,
    },
    /// `#[project]` computes for so long, then decides.
    SlowToProject {
        /// For how many milliseconds.
        ms: u32,
    },
    /// `#[authorize]` traps.
    TrapsInAuthorize,
    /// `#[project]` traps.
    TrapsInProject,
    /// `#[project]` fails.
    FailsInProject,
    /// `#[project]` shows nobody anything.
    Blank,
}

/// What passes by.
#[derive(Event)]
pub enum VaultEvent {
    /// Somebody rang.
    Rang {
        /// What they said.
        text: String,
    },
}

/// Why the vault refuses.
#[derive(Failure)]
#[failure(prefix = "vault")]
pub enum VaultFailure {
    /// It takes a token.
    #[failure(status = 401, message = "sign in first")]
    SignIn,
    /// The caller is not admitted.
    #[failure(status = 403, message = "{sub} is not admitted")]
    NotAdmitted {
        /// Who asked.
        sub: String,
    },
    /// The caller is not the owner.
    #[failure(status = 403, message = "only the owner may do this")]
    NotOwner,
    /// It has an owner.
    #[failure(status = 409, message = "taken by {owner}")]
    Taken {
        /// Who owns it.
        owner: String,
    },
    /// An input that the middleware refuses.
    #[failure(message = "put something in")]
    Empty,
    /// The claims are not those of a user.
    #[failure(transparent)]
    Claims(Failure),
}

/// Who calls: what the middleware tells methods.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Visitor {
    sub: String,
    is_owner: bool,
    /// By which method, as the middleware saw it.
    method: String,
}

/// What the admitted see, who are not the owner.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outside<'a> {
    owner: Option<&'a str>,
    admitted: usize,
    secret_bytes: usize,
    // Hidden in the manifest, wherever it comes from.
    combination: u32,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

#[derive(Deserialize)]
struct Put {
    secret: String,
}

#[actor(events = VaultEvent, hidden("combination"))]
impl Vault {
    /// `knock` is for all, `claim` for who has a token, the rest for the admitted.
    #[before]
    fn visitor(&self, ctx: &Context<Self>, call: &Call<'_>) -> Result<Visitor, VaultFailure> {
        let claims = ctx.client().map(Client::user::<Claims>);
        let claims = claims.transpose().map_err(VaultFailure::Claims)?.flatten();
        let sub = match (call.method(), claims) {
            ("knock", claims) => claims.map_or_else(|| "nobody".to_owned(), |claims| claims.sub),
            (_, None) => return Err(VaultFailure::SignIn),
            ("claim", Some(claims)) => claims.sub,
            (_, Some(claims)) => self.admit(claims)?,
        };
        if call.method() == "put" {
            let put = call.input::<Put>().map_err(VaultFailure::Claims)?;
            if put.secret.is_empty() {
                return Err(VaultFailure::Empty);
            }
        }
        Ok(Visitor {
            is_owner: self.owner.as_ref() == Some(&sub),
            sub,
            method: call.method().to_owned(),
        })
    }

    /// State and events are for the admitted; while it is loud, events are for every user.
    #[authorize]
    fn may_subscribe(&self, who: &Subscriber) -> Result<(), VaultFailure> {
        match self.mood {
            Mood::SlowToAuthorize { ms } => compute(ms),
            Mood::TrapsInAuthorize => panic!("the vault traps in authorize"),
            _ => {}
        }
        let claims: Option<Claims> = who.user().map_err(VaultFailure::Claims)?;
        let claims = claims.ok_or(VaultFailure::SignIn)?;
        if self.loud && who.subject() == Subject::Events {
            return Ok(());
        }
        self.admit(claims).map(drop)
    }

    /// The owner sees all, the admitted how long the secret is, others nothing.
    #[project]
    fn view(&self, who: &Viewer) -> Result<View, VaultFailure> {
        match self.mood {
            Mood::SlowToProject { ms } => compute(ms),
            Mood::TrapsInProject => panic!("the vault traps in project"),
            Mood::FailsInProject => return Err(VaultFailure::Empty),
            Mood::Blank => return Ok(View::Nothing),
            _ => {}
        }
        let claims: Option<Claims> = who.user().map_err(VaultFailure::Claims)?;
        let Some(sub) = claims.and_then(|claims| self.admit(claims).ok()) else {
            return Ok(View::Nothing);
        };
        if self.owner == Some(sub) {
            return Ok(View::Whole);
        }
        Ok(View::of(&Outside {
            owner: self.owner.as_deref(),
            admitted: self.admitted.len(),
            secret_bytes: self.secret.len(),
            combination: self.combination,
        }))
    }

    /// Becomes the owner of a vault that has none.
    pub fn claim(&mut self, #[before] visitor: Visitor) -> Result<Visitor, VaultFailure> {
        if let Some(owner) = &self.owner
            && !visitor.is_owner
        {
            let owner = owner.clone();
            return Err(VaultFailure::Taken { owner });
        }
        self.owner = Some(visitor.sub.clone());
        Ok(visitor)
    }

    /// Lets somebody in; the owner may.
    pub fn admit_user(
        &mut self,
        #[before] visitor: &Visitor,
        sub: String,
    ) -> Result<(), VaultFailure> {
        visitor.owns()?;
        self.admitted.insert(sub);
        Ok(())
    }

    /// Lets somebody in no more; the owner may.
    pub fn bar_user(
        &mut self,
        #[before] visitor: &Visitor,
        sub: String,
    ) -> Result<(), VaultFailure> {
        visitor.owns()?;
        self.admitted.remove(&sub);
        Ok(())
    }

    /// Puts another secret in, which the middleware wants to be one; the admitted may.
    pub fn put(&mut self, secret: String) {
        self.secret = secret;
        self.combination += 1;
    }

    /// The secret; the admitted may.
    pub fn secret(&self) -> String {
        self.secret.clone()
    }

    /// What the middleware said of the caller; the admitted may.
    pub fn whoami(&self, #[before] visitor: Visitor) -> Visitor {
        visitor
    }

    /// Lets everybody knock, on a state that is not decoded.
    pub fn knock(_state: &Tracked<Self>, #[before] visitor: &Visitor) -> Visitor {
        visitor.clone()
    }

    /// Tells who listens; the admitted may.
    pub fn ring(&self, ctx: &mut Context<Self>, text: String) {
        ctx.emit(VaultEvent::Rang { text });
    }

    /// Whether every user may hear its events; the owner may say.
    pub fn set_loud(
        &mut self,
        #[before] visitor: &Visitor,
        loud: bool,
    ) -> Result<(), VaultFailure> {
        visitor.owns()?;
        self.loud = loud;
        Ok(())
    }

    /// What its guards do from now on; the owner may say.
    pub fn set_mood(
        &mut self,
        #[before] visitor: &Visitor,
        mood: Mood,
    ) -> Result<(), VaultFailure> {
        visitor.owns()?;
        self.mood = mood;
        Ok(())
    }

    fn admit(&self, claims: Claims) -> Result<String, VaultFailure> {
        let Claims { sub } = claims;
        if self.owner.as_ref() == Some(&sub) || self.admitted.contains(&sub) {
            return Ok(sub);
        }
        Err(VaultFailure::NotAdmitted { sub })
    }
}

impl Visitor {
    fn owns(&self) -> Result<(), VaultFailure> {
        if self.is_owner {
            return Ok(());
        }
        Err(VaultFailure::NotOwner)
    }
}

/// Computes, without a call of the host that would let it wait.
fn compute(ms: u32) {
    let end = Instant::now() + Duration::from_millis(ms.into());
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

/// Open or closed to all alike, and slow in its own way: each question costs as many reads of
/// the state as it says.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Gate {
    open: bool,
    reads: u32,
}

#[actor]
impl Gate {
    /// A gate that was never set is closed.
    #[authorize]
    fn may_pass(state: &Tracked<Self>) -> Result<()> {
        let reads: u32 = state.get(["reads"])?.unwrap_or(0);
        let mut open = state.get(["open"])?;
        for _ in 0..reads {
            open = state.get(["open"])?;
        }
        match open {
            Some(true) => Ok(()),
            _ => Err(Failure::new("gate.closed").status(403)),
        }
    }

    /// Opens or closes it.
    pub fn set(&mut self, open: bool, reads: Option<u32>) {
        self.open = open;
        self.reads = reads.unwrap_or_default();
    }
}

/// Open or closed to all alike, some time after it has been opened or closed.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Lobby {
    closed: bool,
}

/// What is called out.
#[derive(Event)]
pub enum LobbyEvent {
    /// Somebody calls something out.
    Called {
        /// What is called out.
        text: String,
    },
}

#[actor(events = LobbyEvent)]
impl Lobby {
    #[authorize(recheck = "later")]
    fn may_stay(&self) -> Result<()> {
        match self.closed {
            true => Err(Failure::new("lobby.closed").status(403)),
            false => Ok(()),
        }
    }

    /// Closes it.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Calls something out.
    pub fn call_out(&self, ctx: &mut Context<Self>, text: String) {
        ctx.emit(LobbyEvent::Called { text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::test::{self, Value, json};

    fn user(sub: &str) -> Value {
        json!({"sub": sub})
    }

    /// Ann owns it, Ben is admitted.
    fn vault() -> test::Actor<Vault> {
        let mut vault = test::Actor::new("main");
        for (method, input) in [
            ("claim", json!({})),
            ("admitUser", json!({"sub": "ben"})),
            ("put", json!({"secret": "gold"})),
        ] {
            vault.user(user("ann")).invoke(method, input).unwrap();
        }
        vault
    }

    fn code<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().code().to_owned()
    }

    #[test]
    fn the_middleware_tells_methods_who_calls() {
        let mut vault = vault();
        let told = vault.user(user("ben")).invoke("whoami", None).unwrap();
        assert_eq!(
            told,
            json!({"sub": "ben", "isOwner": false, "method": "whoami"})
        );
        assert_eq!(vault.invoke("knock", None).unwrap()["sub"], "nobody");
        assert_eq!(code(vault.invoke("whoami", None)), "vault.sign-in");
        let eve = vault.user(user("eve")).invoke("secret", None);
        assert_eq!(code(eve), "vault.not-admitted");
        let empty = vault.user(user("ben")).invoke("put", json!({"secret": ""}));
        assert_eq!(code(empty), "vault.empty");
    }

    #[test]
    fn the_owner_sees_all_and_the_admitted_a_part() {
        let mut vault = vault();
        let whole = vault.user(user("ann")).view().unwrap();
        assert_eq!(whole["secret"], "gold");
        assert_eq!(whole.get("combination"), None);
        let part = json!({"owner": "ann", "admitted": 1, "secretBytes": 4});
        assert_eq!(vault.user(user("ben")).view(), Some(part));
        assert_eq!(vault.user(user("eve")).view(), None);
    }

    #[test]
    fn a_loud_vault_is_heard_by_every_user() {
        let mut vault = vault();
        let eve = vault.user(user("eve")).may_subscribe(Subject::Events);
        assert_eq!(code(eve), "vault.not-admitted");
        let loud = json!({"loud": true});
        vault.user(user("ann")).invoke("setLoud", loud).unwrap();
        let mut eve = |to| vault.user(user("eve")).may_subscribe(to);
        assert_eq!(eve(Subject::Events), Ok(()));
        assert_eq!(code(eve(Subject::State)), "vault.not-admitted");
        assert_eq!(code(vault.may_subscribe(Subject::Events)), "vault.sign-in");
    }

    #[test]
    fn a_vault_shows_nothing_on_demand() {
        for mood in ["blank", "failsInProject"] {
            let mut vault = vault();
            let mood = json!({"mood": {"kind": mood}});
            vault.user(user("ann")).invoke("setMood", mood).unwrap();
            assert_eq!(vault.user(user("ann")).view(), None);
        }
    }

    #[test]
    fn a_gate_is_closed_until_it_is_opened() {
        let mut gate = test::Actor::<Gate>::new("main");
        assert_eq!(code(gate.may_subscribe(Subject::State)), "gate.closed");
        let open = json!({"open": true, "reads": 3});
        gate.invoke("set", open).unwrap();
        assert_eq!(gate.may_subscribe(Subject::State), Ok(()));
        assert!(gate.view().is_some());
    }
}
