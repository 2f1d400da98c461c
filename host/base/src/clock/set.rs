//! What a test sets the system's clock to.
//!
//! Nobody but the superuser may set the real one, and all of a machine would see it. So a build
//! for tests looks into the file that `TEST_CLOCK_AHEAD` names for the milliseconds by which
//! the clock is to be ahead, if there is such a variable; any other build knows nothing of it.

use std::time::Duration;

#[cfg(not(debug_assertions))]
pub(super) fn apply(time: Duration) -> Duration {
    time
}

#[cfg(debug_assertions)]
pub(super) fn apply(time: Duration) -> Duration {
    match following::ahead_ms() {
        0 => time,
        ahead_ms => {
            let ms = (time.as_millis() as u64).saturating_add_signed(ahead_ms);
            Duration::from_millis(ms)
                + Duration::from_nanos(u64::from(time.subsec_nanos() % 1_000_000))
        }
    }
}

#[cfg(debug_assertions)]
mod following {
    use std::path::Path;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    const VARIABLE: &str = "TEST_CLOCK_AHEAD";
    const LOOK: Duration = Duration::from_millis(5);

    static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

    pub(super) fn ahead_ms() -> i64 {
        static FOLLOWED: OnceLock<bool> = OnceLock::new();
        let is_followed = FOLLOWED.get_or_init(|| match std::env::var_os(VARIABLE) {
            Some(file) => {
                look(file.as_ref());
                std::thread::spawn(move || {
                    loop {
                        look(file.as_ref());
                        std::thread::sleep(LOOK);
                    }
                });
                true
            }
            None => false,
        });
        match is_followed {
            true => AHEAD_MS.load(Ordering::Relaxed),
            false => 0,
        }
    }

    /// A file that is being written has nothing to say.
    fn look(file: &Path) {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if let Ok(ahead_ms) = text.trim().parse() {
            AHEAD_MS.store(ahead_ms, Ordering::Relaxed);
        }
    }
}
