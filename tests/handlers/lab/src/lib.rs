//! What the end-to-end tests experiment with: `lab` is the counterpart of the actor with
//! which Zocket's own server was recorded, `visits` counts the moments of an actor's life.
//! `vault` and `gate` decide who may see them (`guarded.rs`), `clock` and `presence` live by
//! the clock (`clock.rs`), `caller` calls others (`caller.rs`), `ticker` streams (`ticker.rs`).

pub mod caller;
pub mod clock;
pub mod guarded;
pub mod ledger;
pub mod ticker;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_sdk::prelude::*;

use caller::Caller;
use clock::{Clock, Presence};
use guarded::{Gate, Lobby, Vault};
use ledger::Ledger;
use ticker::Ticker;

tidegate_sdk::export!(
    Lab,
    Visits,
    Clock,
    Presence,
    Caller,
    Ticker,
    Ledger,
    guarded Vault,
    guarded Gate,
    guarded Lobby
);

/// A state with an array, an object, a number, and those who have come.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Lab {
    a: Vec<i64>,
    o: BTreeMap<String, Value>,
    n: i64,
    seen: Vec<String>,
    secret: i64,
}

impl Default for Lab {
    fn default() -> Self {
        Self {
            a: vec![1, 2, 3],
            o: BTreeMap::new(),
            n: 0,
            seen: Vec::new(),
            secret: 0,
        }
    }
}

/// What `lab` tells its subscribers.
#[derive(Event)]
pub enum LabEvent {
    /// A number.
    E {
        /// The number.
        x: i64,
    },
    /// A text.
    Note {
        /// The text.
        text: String,
    },
}

/// Who called, and who else is there.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Who {
    client_id: Option<String>,
    clients: Vec<String>,
    actor: String,
    id: String,
}

/// Why an experiment failed.
#[derive(Failure)]
#[failure(prefix = "lab")]
pub enum LabFailure {
    /// It had to.
    #[failure(message = "boom")]
    Boom,
    /// With all that a failure can carry.
    #[failure(status = 409, message = "taken by {owner}")]
    Taken {
        /// By whom.
        owner: String,
    },
    /// Without words.
    Silent,
}

thread_local! {
    /// Turns of this instance: what guest memory forgets when the instance is replaced.
    static TURNS: Cell<u64> = const { Cell::new(0) };
}

#[actor(events = LabEvent, hidden("secret"))]
impl Lab {
    /// Notes who has come.
    #[connect]
    fn came(&mut self, ctx: &mut Context<Self>) {
        self.seen.extend(ctx.connection().map(str::to_owned));
    }

    /// Tells the log.
    #[deactivate]
    fn leaves(&mut self, ctx: &mut Context<Self>) {
        println!("lab {} leaves memory", ctx.id());
    }

    /// Inserts at the front of the array.
    pub fn unshift(&mut self) {
        self.a.insert(0, 0);
    }

    /// Removes from the middle of the array.
    pub fn splice(&mut self) {
        self.a.drain(1..3);
    }

    /// Removes the last element of the array.
    pub fn trunc(&mut self) {
        self.a.pop();
    }

    /// Adds a member whose name a JSON pointer escapes.
    pub fn slash(&mut self) {
        self.o.insert("a/b~c".to_owned(), json!(1));
    }

    /// Adds an object under such a name.
    pub fn slash_in(&mut self) {
        self.o.insert("x/y".to_owned(), json!({"k": 1}));
    }

    /// Changes that object.
    pub fn slash_set(&mut self) {
        self.o.insert("x/y".to_owned(), json!({"k": 2}));
    }

    /// Removes that object.
    pub fn del(&mut self) {
        self.o.remove("x/y");
    }

    /// Adds a deep value.
    pub fn nested(&mut self) {
        self.o.insert("deep".to_owned(), json!({"l": [{"v": 1}]}));
    }

    /// Changes it deep down.
    pub fn nested2(&mut self) {
        self.o
            .insert("deep".to_owned(), json!({"l": [{"v": 2}, {"v": 3}]}));
    }

    /// Writes twice and tells of both.
    pub fn twice(&mut self, ctx: &mut Context<Self>) -> i64 {
        for _ in 0..2 {
            self.n += 1;
            ctx.emit(LabEvent::E { x: self.n });
        }
        self.n
    }

    /// Writes what is there already.
    pub fn noop(&mut self) {
        self.a = self.a.clone();
        self.n += 0;
    }

    /// Changes what nobody is shown.
    pub fn whisper_to_self(&mut self) -> i64 {
        self.secret += 1;
        self.secret
    }

    /// Changes, tells, and fails.
    pub fn mut_throw(&mut self, ctx: &mut Context<Self>) -> Result<(), LabFailure> {
        self.n = 99;
        self.a.clear();
        ctx.emit(LabEvent::E { x: 99 });
        Err(LabFailure::Boom)
    }

    /// Fails with everything that a failure can carry.
    pub fn taken(&self, owner: String) -> Result<(), LabFailure> {
        Err(LabFailure::Taken { owner })
    }

    /// Fails without a message.
    pub fn silent(&self) -> Result<(), LabFailure> {
        Err(LabFailure::Silent)
    }

    /// Returns nothing.
    pub fn undef(&self) {}

    /// Returns `null`.
    pub fn nul(&self) -> Option<i64> {
        None
    }

    /// Returns 0.
    pub fn zero(&self) -> i64 {
        0
    }

    /// Returns its input.
    pub fn echo(&self, input: Value) -> Value {
        input
    }

    /// Counts, and returns the count.
    pub fn count(&mut self) -> i64 {
        self.n += 1;
        self.n
    }

    /// Replaces the number.
    pub fn set(&mut self, n: i64) {
        self.n = n;
    }

    /// Tells who called, and who else is there.
    pub fn who(&self, ctx: &Context<Self>) -> Who {
        Who {
            client_id: ctx.connection().map(str::to_owned),
            clients: ctx.connections(),
            actor: ctx.actor().to_owned(),
            id: ctx.id().to_owned(),
        }
    }

    /// Waits, then counts.
    pub fn slow(&mut self, ms: u32) -> i64 {
        std::thread::sleep(Duration::from_millis(ms.into()));
        self.count()
    }

    /// Puts a text of this length into the state, another one each time.
    pub fn fill(&mut self, bytes: usize) -> i64 {
        let letter = char::from(b'a' + u8::try_from(self.n % 26).unwrap_or_default());
        self.o
            .insert("filler".to_owned(), letter.to_string().repeat(bytes).into());
        self.count()
    }

    /// Tells everyone.
    pub fn announce(&self, ctx: &mut Context<Self>, text: String) {
        ctx.emit(LabEvent::Note { text });
    }

    /// Tells everyone a text of this length.
    pub fn blare(&self, ctx: &mut Context<Self>, bytes: usize) {
        ctx.emit(LabEvent::Note {
            text: "z".repeat(bytes),
        });
    }

    /// Tells these connections.
    pub fn tell(&self, ctx: &mut Context<Self>, to: Vec<String>, text: String) {
        ctx.to(&to).emit(LabEvent::Note { text });
    }

    /// Tells everyone but these connections.
    pub fn tell_others(&self, ctx: &mut Context<Self>, but: Vec<String>, text: String) {
        ctx.except(&but).emit(LabEvent::Note { text });
    }

    /// How many turns this instance has run, this one included.
    pub fn turns_of_instance(&self) -> u64 {
        TURNS.with(|turns| {
            turns.set(turns.get() + 1);
            turns.get()
        })
    }
}

/// How often each hook ran.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Visits {
    activations: u32,
    deactivations: u32,
    connects: Vec<String>,
    disconnects: Vec<String>,
    calls: u32,
}

#[actor]
impl Visits {
    #[activate]
    fn on_activate(&mut self) {
        self.activations += 1;
    }

    #[deactivate]
    fn on_deactivate(&mut self) {
        self.deactivations += 1;
        println!("deactivated {} times", self.deactivations);
    }

    #[connect]
    fn on_connect(&mut self, ctx: &mut Context<Self>) {
        self.connects.extend(ctx.connection().map(str::to_owned));
    }

    #[disconnect]
    fn on_disconnect(&mut self, ctx: &mut Context<Self>) {
        self.disconnects.extend(ctx.connection().map(str::to_owned));
    }

    /// Counts a call, after a while.
    pub fn call(&mut self, ms: Option<u32>) -> u32 {
        std::thread::sleep(Duration::from_millis(ms.unwrap_or_default().into()));
        self.calls += 1;
        self.calls
    }

    /// The connections that are known.
    pub fn known(&self, ctx: &Context<Self>) -> Vec<String> {
        ctx.connections()
    }
}
