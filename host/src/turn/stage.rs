//! What a running turn has staged, and the guest's view of it.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;
use tidegate_core::document::{Op, OpError};
use tidegate_core::failure::code;
use tidegate_core::manifest::ActorType;
use tidegate_core::{Failure, Name, PatchOp, Pointer, patch};

use super::ledger::{Ledger, Live, next_token};
use super::release::{Effects, StagedEvent};
use crate::config::Limits;
use crate::engine::{Audience, Component, Imports};
use crate::fanout::{Body, Message, Recipients};
use crate::store::{Commit, Committed, Store};

/// What an event, and each connection that it is addressed to, weighs beside its text.
const EVENT_COST: usize = 64;

/// What one turn has staged so far.
///
/// The state document is changed in place, with an undo log, in the ledger that the
/// actor's subscribers share: they see its last committed content at any time. Dropping
/// a stage that was not committed rolls the document back.
pub struct Stage {
    live: Arc<Live>,
    component: Arc<Component>,
    actor: Name,
    limits: Arc<Limits>,
    events: Vec<StagedEvent>,
    /// What has been staged, in bytes.
    bytes: usize,
    /// A limit that was passed: the turn fails even if the guest does not mind.
    exceeded: Option<Failure>,
    open: bool,
}

impl Stage {
    /// The beginning of a turn.
    pub fn new(live: Arc<Live>, component: Arc<Component>) -> Stage {
        Stage {
            actor: live.key.actor.clone(),
            limits: component.limits().clone(),
            live,
            component,
            events: Vec::new(),
            bytes: 0,
            exceeded: None,
            open: true,
        }
    }

    fn actor_type(&self) -> Option<&ActorType> {
        self.component.manifest.actors.get(self.actor.as_str())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Failure> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes <= self.limits.effects_bytes {
            return Ok(());
        }
        let failure = Failure::host(code::TURN_EFFECTS_LIMIT)
            .message(format!(
                "the turn staged more than {} bytes",
                self.limits.effects_bytes
            ))
            .param("limit", self.limits.effects_bytes);
        self.exceeded.get_or_insert_with(|| failure.clone());
        Err(failure)
    }

    fn charge_state(&mut self, bytes: usize) -> Result<(), Failure> {
        if bytes <= self.limits.state_bytes {
            return Ok(());
        }
        let failure = Failure::host(code::STATE_TOO_LARGE)
            .message(format!(
                "the state is longer than {} bytes",
                self.limits.state_bytes
            ))
            .param("limit", self.limits.state_bytes);
        self.exceeded.get_or_insert_with(|| failure.clone());
        Err(failure)
    }

    /// Checks the result of a method: it must be JSON, within the turn's account, and,
    /// where that is asked for, what the manifest says.
    pub fn check_result(
        &mut self,
        method: &str,
        result: &str,
        validate: bool,
    ) -> Result<(), Failure> {
        self.charge(result.len())?;
        let invalid = |detail: String| {
            Failure::host(code::OUTPUT_INVALID)
                .message(format!("{method} returned an invalid result: {detail}"))
        };
        let schema = self
            .actor_type()
            .and_then(|actor| actor.methods.get(method))
            .and_then(|method| method.output.as_ref())
            .filter(|_| validate);
        match schema {
            Some(schema) => {
                let value: Value =
                    serde_json::from_str(result).map_err(|error| invalid(error.to_string()))?;
                schema
                    .check(&value)
                    .map_err(|violations| invalid(violations.to_string()))
            }
            None => check_json(result).map_err(invalid),
        }
    }

    /// Commits: checks what is staged, makes it safe, and returns what may leave now.
    ///
    /// On failure everything is rolled back.
    pub async fn commit(mut self, store: &dyn Store) -> Result<Effects, Failure> {
        if let Some(exceeded) = self.exceeded.take() {
            return Err(exceeded);
        }
        let Some(patches) = self.prepare()? else {
            self.open = false;
            return Ok(Effects {
                live: self.live.clone(),
                component: self.component.clone(),
                changed: false,
                patch: None,
                events: std::mem::take(&mut self.events),
            });
        };
        let (epoch, version) = {
            let ledger = self.live.ledger();
            (ledger.epoch.clone(), ledger.version + 1)
        };
        let committed = store.commit(Commit {
            actor: &self.live.key,
            epoch: &epoch,
            version,
            patches: &patches,
        });
        if let Committed::Later(later) = committed {
            later.await.map_err(|error| {
                Failure::host(code::STORE_UNAVAILABLE).message(error.to_string())
            })?;
        }
        Ok(self.finish(patches, epoch, version))
    }

    /// The patch to commit, none when the state has not changed.
    fn prepare(&mut self) -> Result<Option<Vec<PatchOp>>, Failure> {
        let mut ledger = self.live.ledger();
        if !ledger.document.is_dirty() {
            return Ok(None);
        }
        let patches = ledger.document.changes();
        if patches.is_empty() {
            // The document has the same content again, so the old token still names it;
            // the new one names it as well and may be in the guest's memory.
            ledger.accept();
            return Ok(None);
        }
        if let Some(schema) = self
            .actor_type()
            .and_then(|actor| actor.state.schema.as_ref())
        {
            schema
                .check(ledger.document.value())
                .map_err(|violations| {
                    Failure::host(code::STATE_INVALID).message(format!(
                        "the turn would leave an invalid state: {violations}"
                    ))
                })?;
        }
        Ok(Some(patches))
    }

    fn finish(mut self, patches: Vec<PatchOp>, epoch: Arc<str>, version: u64) -> Effects {
        let mut ledger = self.live.ledger();
        ledger.accept();
        ledger.version = version;
        ledger.encoded = None;
        let shown = patch::without_hidden(patches, &ledger.hidden);
        let patch = (!shown.is_empty()).then(|| {
            let from = std::mem::replace(&mut ledger.shown_version, version);
            let body = Body::Patch {
                patches: patch::encode(&shown),
                epoch,
                from,
                version,
            };
            (Message::new(self.live.key.clone(), body), version)
        });
        drop(ledger);
        self.open = false;
        Effects {
            live: self.live.clone(),
            component: self.component.clone(),
            changed: true,
            patch,
            events: std::mem::take(&mut self.events),
        }
    }

    fn write(
        &mut self,
        change: impl FnOnce(&mut Ledger) -> Result<usize, Failure>,
    ) -> Result<u64, Failure> {
        let live = self.live.clone();
        let mut ledger = live.ledger();
        let state_bytes = change(&mut ledger)?;
        ledger.state_bytes = state_bytes;
        let token = next_token();
        ledger.token = token;
        Ok(token)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.open {
            self.live.ledger().rollback();
        }
    }
}

impl Imports for Stage {
    fn token(&mut self) -> u64 {
        self.live.ledger().token
    }

    fn read(&mut self) -> String {
        self.live.ledger().document.value().to_string()
    }

    fn replace(&mut self, doc: String) -> Result<u64, Failure> {
        self.charge(doc.len())?;
        self.charge_state(doc.len())?;
        let value: Value = serde_json::from_str(&doc).map_err(|error| {
            Failure::host(code::STATE_MALFORMED).message(format!("the state is not JSON: {error}"))
        })?;
        self.write(|ledger| {
            ledger.document.replace(value);
            Ok(doc.len())
        })
    }

    fn get(&mut self, pointer: &Pointer) -> Option<String> {
        self.live
            .ledger()
            .document
            .get(pointer)
            .map(Value::to_string)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Failure> {
        Stage::charge(self, bytes)
    }

    fn patch(&mut self, ops: Vec<Op>, bytes: usize) -> Result<u64, Failure> {
        let estimate = self.live.ledger().state_bytes.saturating_add(bytes);
        let estimate = if estimate > self.limits.state_bytes {
            // Replaced and removed values are counted in the estimate; count exactly.
            self.live.ledger().document.value().to_string().len() + bytes
        } else {
            estimate
        };
        self.charge_state(estimate)?;
        self.write(|ledger| {
            ledger.document.apply(&ops).map_err(op_failure)?;
            Ok(estimate)
        })
    }

    fn emit(&mut self, event: String, payload: String, to: Audience) -> Result<(), Failure> {
        let ids = match &to {
            Audience::Everyone => &[],
            Audience::Only(ids) | Audience::Except(ids) => ids.as_slice(),
        };
        let addresses: usize = ids.iter().map(|id| id.len() + EVENT_COST).sum();
        self.charge(EVENT_COST + event.len() + payload.len() + addresses)?;
        let Some(schema) = self
            .actor_type()
            .and_then(|actor| actor.events.get(event.as_str()))
        else {
            return Err(Failure::host(code::EVENT_UNKNOWN)
                .message(format!("the manifest declares no event `{event}`"))
                .param("event", event));
        };
        let invalid = |detail: String| {
            Failure::host(code::EVENT_INVALID)
                .message(format!("the payload of `{event}` is invalid: {detail}"))
                .param("event", event.clone())
        };
        if schema.source() == &Value::Bool(true) {
            check_json(&payload).map_err(invalid)?;
        } else {
            let value: Value =
                serde_json::from_str(&payload).map_err(|error| invalid(error.to_string()))?;
            schema
                .check(&value)
                .map_err(|violations| invalid(violations.to_string()))?;
        }
        let to = match to {
            Audience::Everyone => Recipients::Everyone,
            Audience::Only(ids) => Recipients::Only(HashSet::from_iter(ids)),
            Audience::Except(ids) => Recipients::Except(HashSet::from_iter(ids)),
        };
        let body = Body::Event {
            name: event,
            payload,
        };
        self.events.push(StagedEvent {
            message: Message::new(self.live.key.clone(), body),
            to,
        });
        Ok(())
    }

    fn connections(&mut self) -> Vec<String> {
        let ledger = self.live.ledger();
        ledger.connections.keys().map(|id| id.to_string()).collect()
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }
}

fn check_json(text: &str) -> Result<(), String> {
    serde_json::from_str::<&RawValue>(text)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn op_failure(error: OpError) -> Failure {
    let code = match &error {
        OpError::NoSuchPlace { .. } => code::STATE_NO_SUCH_PLACE,
        OpError::NotAString { .. } => code::STATE_NOT_A_STRING,
        OpError::RemovesDocument { .. } | OpError::TooDeep { .. } => code::STATE_MALFORMED,
    };
    Failure::host(code)
        .message(error.to_string())
        .param("pointer", error.pointer())
}
