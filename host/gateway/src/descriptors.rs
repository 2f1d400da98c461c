//! How many file descriptors the process may have, and how many of them sockets get: the store
//! that cannot open its next file stops.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::info;

/// Raises the process's soft limit to the hard one, and says how many sockets may be open: as
/// many as are wanted, unless too few descriptors would be left for everything else.
pub(super) fn for_sockets(wanted: usize, reserved: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let soft = limit.current;
    limit.current = limit.maximum;
    if soft != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, limit)
    {
        info!(%error, "the limit of file descriptors cannot be raised");
        limit.current = soft;
    }
    let Some(descriptors) = limit.current else {
        return wanted;
    };
    let room = room(usize::try_from(descriptors).unwrap_or(usize::MAX), reserved);
    if room < wanted {
        info!(
            descriptors,
            "file descriptors for {room} sockets at most, of the {wanted} of \
             gateway.max-connections: raise the process's limit (ulimit -n)"
        );
    }
    wanted.min(room)
}

/// How many of so many descriptors sockets get: where there are few, half.
fn room(descriptors: usize, reserved: usize) -> usize {
    descriptors.saturating_sub(reserved).max(descriptors / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_leave_descriptors_to_others() {
        assert_eq!(room(20_000, 256), 19_744);
        assert_eq!(room(64, 256), 32);
        assert_eq!(room(64, 0), 64);
    }
}
