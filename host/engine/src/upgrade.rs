//! What a component may do besides turns and guards: migrate states, and test itself. Each
//! call gets a new instance, and no imports.
//!
//! `turn` migrates here what it has loaded; whoever lets a component take over has it test
//! itself.

use std::time::{Duration, Instant};

use tidegate_core::failure::code;
use tidegate_core::{ActorKey, Failure};

use super::instance::{Crash, within};
use super::load::{Component, LoadError};

impl Component {
    /// Whether it migrates states of other versions of itself.
    pub fn migrates(&self) -> bool {
        self.template.migrate.is_some()
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
            failure: Failure::host(code::TURN_DEADLINE)
                .message("too many other states are being migrated"),
            detail: "no instance became free".to_owned(),
        })?;
        let mut instance = self.instantiate().await?;
        let Some(guest) = instance.migrate.take() else {
            return Err(missing("migrate"));
        };
        let allowed = Duration::from_millis(self.limits().guard_deadline_ms);
        let deadline = instance.open_upgrade(allowed);
        let log = &instance.store.data().log;
        log.begin_turn(this, "migrate", None, self.limits().log_bytes);
        let this = this.into();
        let call = guest.call_migrate(&mut instance.store, &this, &state, version);
        let result = within(&instance.ticker, deadline, call).await;
        let (_, result) = instance.close(result);
        result.map(|migrated| migrated.map_err(Failure::from))
    }

    /// Has the component test itself, if it can. An error says why it must not take over.
    ///
    /// # Errors
    ///
    /// [`LoadError::SelfTest`], with the code and the message that the component gave.
    pub async fn self_test(&self) -> Result<(), LoadError> {
        if self.template.self_test.is_none() {
            return Ok(());
        }
        let tested = async {
            let mut instance = self.instantiate().await?;
            let Some(guest) = instance.self_test.take() else {
                return Err(missing("self-test"));
            };
            let deadline = instance.open_upgrade(self.limits().turn_deadline());
            let result = within(
                &instance.ticker,
                deadline,
                guest.call_check(&mut instance.store),
            )
            .await;
            let (_, result) = instance.close(result);
            Ok(result?.map_err(Failure::from))
        };
        match tested.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(LoadError::SelfTest(failure)),
            Err(crash) => {
                tracing::warn!(
                    component = self.name(),
                    detail = crash.detail,
                    "a self-test crashed"
                );
                Err(LoadError::SelfTest(crash.failure))
            }
        }
    }
}

fn missing(export: &str) -> Crash {
    Crash {
        failure: Failure::host(code::INTERNAL).message("the host failed"),
        detail: format!("the component does not export {export}"),
    }
}
