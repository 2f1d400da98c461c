//! What the same test runs against: the host, or a Spin application of the same handlers.

use std::path::{Path, PathBuf};

use crate::host::Builder;
use crate::spin::{Spin, SpinBuilder};
use crate::{Host, Request};

/// Where handlers are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// By the host.
    Host,
    /// By Spin.
    Spin,
}

/// Handlers that are about to be served.
#[derive(Clone)]
pub struct Application {
    target: Target,
    handlers: Vec<String>,
    with_tokens: bool,
    data: Option<PathBuf>,
    settings: Vec<String>,
}

/// Handlers that are served.
pub enum Served {
    /// By the host.
    Host(Box<Host>),
    /// By Spin.
    Spin(Box<Spin>),
}

impl Target {
    /// Serves these handlers of `target/handlers` with default settings.
    pub async fn serving<const N: usize>(self, handlers: [&str; N]) -> Served {
        self.application(handlers).start().await
    }

    /// These handlers, to be served.
    pub fn application<const N: usize>(self, handlers: [&str; N]) -> Application {
        Application {
            target: self,
            handlers: handlers.map(str::to_owned).into(),
            with_tokens: false,
            data: None,
            settings: Vec::new(),
        }
    }
}

impl Application {
    /// Wants tokens of [`token`](crate::token).
    #[must_use]
    pub fn with_tokens(mut self) -> Application {
        self.with_tokens = true;
        self
    }

    /// Keeps what lasts in this folder.
    #[must_use]
    pub fn data(mut self, folder: &Path) -> Application {
        self.data = Some(folder.to_owned());
        self
    }

    /// A setting of the host, which Spin has no need of.
    #[must_use]
    pub fn on_host_set(mut self, setting: &str) -> Application {
        self.settings.push(setting.to_owned());
        self
    }

    /// Serves them.
    pub async fn start(&self) -> Served {
        match self.target {
            Target::Host => Served::Host(Box::new(self.host().start().await)),
            Target::Spin => Served::Spin(Box::new(self.spin().start().await)),
        }
    }

    fn host(&self) -> Builder {
        let mut builder = Host::builder();
        for handler in &self.handlers {
            builder = builder.component(handler);
        }
        if self.with_tokens {
            builder = builder.with_tokens();
        }
        for setting in &self.settings {
            builder = builder.set(setting);
        }
        match &self.data {
            Some(folder) => builder.data(folder),
            None => builder,
        }
    }

    fn spin(&self) -> SpinBuilder {
        let mut builder = Spin::builder();
        for handler in &self.handlers {
            builder = builder.component(handler);
        }
        if self.with_tokens {
            builder = builder.with_tokens();
        }
        match &self.data {
            Some(folder) => builder.data(folder),
            None => builder,
        }
    }
}

impl Served {
    /// Where they are served.
    pub fn target(&self) -> Target {
        match self {
            Served::Host(_) => Target::Host,
            Served::Spin(_) => Target::Spin,
        }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        match self {
            Served::Host(host) => host.address(),
            Served::Spin(spin) => spin.address(),
        }
    }

    /// A request without a body.
    pub fn get(&self, path: &str) -> Request {
        Request::new(self.address(), http::Method::GET, path)
    }

    /// A request that may carry a body.
    pub fn post(&self, path: &str) -> Request {
        Request::new(self.address(), http::Method::POST, path)
    }

    /// Ends the process as `kill -9` does.
    pub async fn kill(self) {
        match self {
            Served::Host(host) => host.kill().await,
            Served::Spin(spin) => spin.kill().await,
        }
    }
}
