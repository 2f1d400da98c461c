//! `tidegate:realtime/manifest`: what a component says of itself.

use super::instance::{Crash, Instance, within};

impl Instance {
    /// Runs `manifest.describe`, outside any turn.
    pub(super) async fn describe(&mut self) -> Result<String, Crash> {
        let deadline = self.open_without_imports(self.limits.turn_deadline());
        let call = self.guests.manifest.call_describe(&mut self.store);
        let result = within(&self.ticker, deadline, call).await;
        self.close(result).1
    }
}
