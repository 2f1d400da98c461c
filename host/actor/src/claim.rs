//! The claims on actor types: what hangs on each is the slot of its component and what is counted.

use std::sync::Arc;

use tidegate_registry::{metrics, router};

use super::metrics::{ActorMetrics, Metrics};

/// The components of a host, by name and by the actor types that they claim.
pub type Router = router::Router<ActorMetrics>;
/// The place of one actor type: the component that serves it now.
pub type Slot = router::Slot<ActorMetrics>;

/// No components. What is counted of each actor type is among these metrics.
pub fn router(components: Arc<metrics::Metrics>, actors: Arc<Metrics>) -> Router {
    Router::new(components, move |actor| actors.actor(actor))
}
