//! `tidegate:realtime/migrate`: states of other versions of a component, brought up to date.
//!
//! `actor` migrates here what it has loaded. Each call gets a new instance, and no imports.

use std::time::{Duration, Instant};

use tidegate_core::{ActorKey, Failure};

use super::instance::{Crash, Stop, within};
use super::load::Component;

impl Component {
    /// Whether it migrates states of other versions of itself.
    pub fn migrates(&self) -> bool {
        self.template.exports.migrate.is_some()
    }

    /// Asks `migrate.migrate` for the state that an actor goes on with. Waits while as many
    /// states are migrated as may be.
    pub async fn migrate(
        &self,
        this: &ActorKey,
        state: String,
        version: u32,
    ) -> Result<Result<String, Failure>, Crash> {
        let permit = async { Ok(self.migrations.acquire().await?) };
        let _permit = within(
            &self.template.ticker,
            Instant::now() + self.limits().turn_deadline(),
            permit,
        )
        .await
        .map_err(|_: wasmtime::Error| Crash {
            failure: Failure::migration_busy(),
            detail: "no instance became free".to_owned(),
        })?;
        let mut instance = self.instantiate().await?;
        let allowed = Duration::from_millis(self.limits().guard_deadline_ms);
        let deadline = instance.open_without_imports(allowed);
        let log = &instance.store.data().log;
        log.begin_turn(this, "migrate", None, self.limits().log_bytes);
        let this = this.into();
        let result = match &instance.guests.migrate {
            Some(guest) => {
                let call = guest.call_migrate(&mut instance.store, &this, &state, version);
                within(&instance.ticker, deadline, call).await
            }
            None => Err(Stop::NotExported("migrate").into()),
        };
        let (_, result) = instance.close(result);
        result.map(|migrated| migrated.map_err(Failure::from))
    }
}
