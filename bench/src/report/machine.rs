//! Where a run took place, so that its figures are not taken for another machine's.

use std::fs;

use serde_json::{Value, json};

/// The machine, as far as the kernel tells.
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    kernel: String,
    /// Processes that wanted a core when the run began, on average of the last minute.
    load: f64,
}

impl Machine {
    pub(crate) fn this() -> Machine {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processor = text("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned());
        let load = text("/proc/loadavg");
        Machine {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor,
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: load
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "cores": self.cores, "processor": self.processor, "kernel": self.kernel,
            "load": self.load,
        })
    }

    /// What it is, whatever it was doing.
    pub(crate) fn short(&self) -> String {
        format!(
            "{} cores, {}, Linux {}",
            self.cores, self.processor, self.kernel
        )
    }

    /// One line.
    pub(crate) fn line(&self) -> String {
        format!("{}; load {:.2} when it began", self.short(), self.load)
    }
}
