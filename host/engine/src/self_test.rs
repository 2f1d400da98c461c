//! `tidegate:realtime/self-test`: whether a component is fit to serve, as it sees it itself.
//!
//! Whoever lets a component take over asks here first. A call gets a new instance, and no imports.

use tidegate_core::Failure;

use super::instance::{Stop, within};
use super::load::{Component, LoadError};

impl Component {
    /// Has the component test itself, if it can. An error says why it must not take over.
    ///
    /// # Errors
    ///
    /// [`LoadError::SelfTest`], with the code and the message that the component gave.
    pub async fn self_test(&self) -> Result<(), LoadError> {
        if self.template.exports.self_test.is_none() {
            return Ok(());
        }
        let tested = async {
            let mut instance = self.instantiate().await?;
            let deadline = instance.open_without_imports(self.limits().turn_deadline());
            let result = match &instance.guests.self_test {
                Some(guest) => {
                    let call = guest.call_check(&mut instance.store);
                    within(&instance.ticker, deadline, call).await
                }
                None => Err(Stop::NotExported("self-test").into()),
            };
            let (_, result) = instance.close(result);
            result.map(|tested| tested.map_err(Failure::from))
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
