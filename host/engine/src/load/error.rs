//! What is said of a component that is refused: what was expected, what was found, and what to do.

use tidegate_core::Failure;
use tidegate_core::manifest::ManifestError;

use super::super::instance::Crash;
use super::{OFFERED, PACKAGE, VERSION};

/// Why a component is refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Beyond `engine.max-component-bytes`.
    #[error("the file has {bytes} bytes; engine.max-component-bytes allows {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: u64,
    },
    /// Some other kind of file.
    #[error("not a WebAssembly file: expected it to begin with `\\0asm`, found {found}")]
    NotWasm {
        /// Its first bytes.
        found: String,
    },
    /// A core module.
    #[error(
        "a core WebAssembly module, expected a component: build for the target wasm32-wasip2, \
         or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    /// Invalid or cut short.
    #[error("not a valid component: {detail}")]
    Invalid {
        /// The validator's words.
        detail: String,
    },
    /// Holds more than is compiled.
    #[error("the component has {found} {what}; engine.{setting} allows {limit}")]
    TooComplex {
        /// What there is too much of.
        what: &'static str,
        /// How much of it there is.
        found: u64,
        /// The setting that limits it.
        setting: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Compiling takes more memory than it may.
    #[error(
        "compiling the component takes more memory than engine.compile-memory-bytes allows, \
         {limit} bytes"
    )]
    CompileMemory {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Compiling takes longer than it may.
    #[error("compiling the component takes longer than engine.{key} allows, {limit} ms")]
    CompileTimeout {
        /// The limit, in milliseconds.
        limit: u64,
        /// The setting.
        key: &'static str,
    },
    /// Compiled, it is longer than it may be.
    #[error("the compiled code is longer than engine.max-compiled-bytes allows, {limit} bytes")]
    TooMuchCode {
        /// The limit, in bytes.
        limit: usize,
    },
    /// As many components as may be are being compiled, and none of them was done in time.
    #[error("others are being compiled (engine.compile-processes); try again later")]
    NoPlace,
    /// The compiler has failed, or could not be started.
    #[error("the compiler has failed: {detail}")]
    Compiler {
        /// What it has said.
        detail: String,
    },
    /// The contract wants an export that is not there.
    #[error("the component does not export `{expected}`; it exports {found}")]
    MissingExport {
        /// What was expected.
        expected: String,
        /// What there is.
        found: String,
    },
    /// Built against a version of the package that this host does not serve.
    #[error("the component uses `{found}`, expected version {VERSION} of {PACKAGE}")]
    OtherVersion {
        /// The import or export.
        found: String,
    },
    /// Wants something that the host does not have.
    #[error(
        "the component imports `{name}`, which the host does not offer: it offers {}",
        offered()
    )]
    UnknownImport {
        /// The import.
        name: String,
    },
    /// An import or export has another shape than the contract says.
    #[error("an import or export is not of the type that {PACKAGE}@{VERSION} gives it: {detail}")]
    Mismatch {
        /// Which one, and how.
        detail: String,
    },
    /// Its manifest speaks of what it does not export.
    #[error("the manifest {declares}, but the component does not export `{expected}`")]
    NotExported {
        /// What the manifest does.
        declares: String,
        /// The interface that carries that.
        expected: String,
    },
    /// It did not get as far as describing itself.
    #[error("the component crashed while describing itself: {}", .0.detail)]
    Crashed(Crash),
    /// What it says of itself does not hold.
    #[error("invalid manifest: {0}")]
    Manifest(ManifestError),
    /// It says of itself that it is not fit to serve.
    #[error("its self-test failed: {0}")]
    SelfTest(Failure),
}

fn offered() -> String {
    format!(
        "{} of {PACKAGE}@{VERSION}, and WASI 0.2 with outgoing HTTP, without files and sockets",
        OFFERED.join(", ")
    )
}
