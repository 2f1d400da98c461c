//! Turns a handler into a Spin HTTP application: three components become one.
//!
//! ```text
//! shim      exports what the handler imports, and `tidegate:spin/control`
//! handler   as it is, byte for byte
//! gateway   imports the handler's exports and the shim's `control`; Spin calls it
//! ```
//!
//! `tidegate compose` calls this with the pieces that the binary carries. Invariants: the
//! handler's bytes stand unchanged in the composite; the composite imports nothing that
//! Spin does not offer, and exports the gateway's HTTP handler alone. No piece imports,
//! directly or through others, what it exports: there is no cycle.

use wac_graph::types::{Package, are_semver_compatible};
use wac_graph::{CompositionGraph, EncodeOptions, NodeId, PackageId};

/// The version of the contract (`wit/`) that the pieces are made for.
const CONTRACT: (&str, (u64, u64, u64)) = ("tidegate:realtime", (0, 1, 0));
/// Types only: who imports it needs nobody to export it.
const TYPES: &str = "tidegate:realtime/types";
/// What Spin looks for to call a component.
const HTTP_HANDLER: &str = "wasi:http/incoming-handler";

/// What Spin 2 and later offer to a component, by package; of WASI, version 0.2.
const OFFERED: [&str; 8] = [
    "wasi:cli",
    "wasi:clocks",
    "wasi:filesystem",
    "wasi:http",
    "wasi:io",
    "wasi:random",
    "wasi:sockets",
    "fermyon:spin",
];

/// The components that are put around a handler.
#[derive(Clone, Copy)]
pub struct Pieces<'a> {
    /// Exports what handlers import.
    pub shim: &'a [u8],
    /// Exports the HTTP handler.
    pub gateway: &'a [u8],
}

/// Why a handler does not become a Spin application.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// The file is something else.
    #[error("expected a WebAssembly component, found {found}")]
    NotAComponent {
        /// What it is.
        found: &'static str,
    },
    /// The file is damaged, or uses what this program does not know.
    #[error("the component cannot be read: {0}")]
    Unreadable(String),
    /// The component is no handler.
    #[error(
        "the component does not export `{interface}`, which every handler with actors does; its \
         exports are: {exports}"
    )]
    NoHandler {
        /// What is missing.
        interface: &'static str,
        /// What is there.
        exports: String,
    },
    /// The handler is of a contract that this program does not know.
    #[error(
        "the handler uses `{name}`, which is of a newer contract than this program's \
         (tidegate:realtime@0.1.0); use a newer tidegate"
    )]
    Newer {
        /// The interface.
        name: String,
    },
    /// The handler wants what Spin does not have.
    #[error("Spin does not offer what the handler imports: {imports}")]
    NotOffered {
        /// The imports.
        imports: String,
    },
    /// An interface has another shape than its name says.
    #[error("`{name}` does not fit: {detail}")]
    Mismatch {
        /// The interface.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// The result is not a component.
    #[error("the composition failed: {0}")]
    Encode(String),
}

/// Composes a handler and the pieces.
pub fn compose(handler: &[u8], pieces: Pieces<'_>) -> Result<Vec<u8>, ComposeError> {
    check_kind(handler)?;
    let mut graph = CompositionGraph::new();
    let handler = Part::register(&mut graph, "tidegate:handler", handler)?;
    handler.check()?;
    let shim = Part::register(&mut graph, "tidegate:shim", pieces.shim)?;
    let gateway = Part::register(&mut graph, "tidegate:gateway", pieces.gateway)?;

    let shim_instance = graph.instantiate(shim.id);
    let handler_instance = graph.instantiate(handler.id);
    let gateway_instance = graph.instantiate(gateway.id);
    for import in handler.contract_imports() {
        let Some(export) = shim.export(import) else {
            return Err(ComposeError::Newer {
                name: import.clone(),
            });
        };
        connect(
            &mut graph,
            (shim_instance, export),
            (handler_instance, import),
        )?;
    }
    for import in gateway.contract_imports() {
        // What a handler does not say, the shim says for it: everybody may see everything.
        let source = match handler.export(import) {
            Some(export) => (handler_instance, export),
            None => match shim.export(import) {
                Some(export) => (shim_instance, export),
                None => continue,
            },
        };
        connect(&mut graph, source, (gateway_instance, import))?;
    }
    let http = gateway
        .exports
        .iter()
        .find(|name| is_of(name, HTTP_HANDLER));
    let http = http.ok_or_else(|| ComposeError::Encode("the gateway serves no HTTP".to_owned()))?;
    let encode = |error: &dyn std::fmt::Display| ComposeError::Encode(error.to_string());
    let node = graph
        .alias_instance_export(gateway_instance, http)
        .map_err(|error| encode(&error))?;
    graph.export(node, http).map_err(|error| encode(&error))?;
    graph
        .encode(EncodeOptions::default())
        .map_err(|error| ComposeError::Encode(with_causes(&error)))
}

/// What a handler offers that nothing on Spin asks it for, each with what follows from that. It
/// is served all the same.
pub fn unheeded(handler: &[u8]) -> Result<Vec<&'static str>, ComposeError> {
    let mut graph = CompositionGraph::new();
    let handler = Part::register(&mut graph, "tidegate:handler", handler)?;
    let offers = |interface| handler.exports.iter().any(|name| is_of(name, interface));
    let unheeded = UNHEEDED.iter().filter(|(interface, _)| offers(interface));
    Ok(unheeded.map(|(_, why)| *why).collect())
}

/// Exports that only the host calls.
const UNHEEDED: [(&str, &str); 2] = [
    (
        "tidegate:realtime/migrate",
        "`migrate` is not called on Spin: a state of another version is refused with `state.unfit`",
    ),
    (
        "tidegate:realtime/self-test",
        "`self-test` is not called on Spin: nothing is tried before the handler serves",
    ),
];

/// One component of a composition.
struct Part {
    id: PackageId,
    imports: Vec<String>,
    exports: Vec<String>,
}

impl Part {
    fn register(
        graph: &mut CompositionGraph,
        name: &str,
        bytes: &[u8],
    ) -> Result<Part, ComposeError> {
        let unreadable = |detail| ComposeError::Unreadable(detail);
        let package = Package::from_bytes(name, None, bytes, graph.types_mut())
            .map_err(|error| unreadable(format!("{error:#}")))?;
        let world = &graph.types()[package.ty()];
        let (imports, exports) = (&world.imports, &world.exports);
        let (imports, exports) = (imports.keys().cloned(), exports.keys().cloned());
        let (imports, exports) = (imports.collect(), exports.collect());
        let id = graph
            .register_package(package)
            .map_err(|error| unreadable(error.to_string()))?;
        Ok(Part {
            id,
            imports,
            exports,
        })
    }

    /// The imports that another part provides.
    fn contract_imports(&self) -> impl Iterator<Item = &String> {
        self.imports
            .iter()
            .filter(|name| name.starts_with("tidegate:") && !is_of(name, TYPES))
    }

    fn export(&self, name: &str) -> Option<&String> {
        let mut exports = self.exports.iter();
        exports.find(|export| are_semver_compatible(export, name))
    }

    /// Checks that this is a handler which the pieces and Spin can serve.
    fn check(&self) -> Result<(), ComposeError> {
        let names = self.imports.iter().chain(&self.exports);
        if let Some(newer) = names.into_iter().find(|name| is_newer(name)) {
            return Err(ComposeError::Newer {
                name: newer.clone(),
            });
        }
        for interface in ["tidegate:realtime/manifest", "tidegate:realtime/actor"] {
            if !self.exports.iter().any(|name| is_of(name, interface)) {
                let exports = match self.exports.as_slice() {
                    [] => "none".to_owned(),
                    exports => exports.join(", "),
                };
                return Err(ComposeError::NoHandler { interface, exports });
            }
        }
        let refused: Vec<&str> = self
            .imports
            .iter()
            .map(String::as_str)
            .filter(|name| !is_offered(name))
            .collect();
        match refused.is_empty() {
            true => Ok(()),
            false => Err(ComposeError::NotOffered {
                imports: refused.join(", "),
            }),
        }
    }
}

/// Provides an import of one instance with an export of another.
fn connect(
    graph: &mut CompositionGraph,
    (source, export): (NodeId, &String),
    (target, import): (NodeId, &String),
) -> Result<(), ComposeError> {
    let mismatch = |detail| ComposeError::Mismatch {
        name: import.clone(),
        detail,
    };
    let node = graph
        .alias_instance_export(source, export)
        .map_err(|error| mismatch(with_causes(&error)))?;
    graph
        .set_instantiation_argument(target, import, node)
        .map_err(|error| mismatch(with_causes(&error)))
}

/// Tells files apart by their first eight bytes: the word `\0asm`, a version and a layer.
fn check_kind(bytes: &[u8]) -> Result<(), ComposeError> {
    let found = match bytes.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => return Ok(()),
        Some([0, b'a', b's', b'm', ..]) => "a core WebAssembly module; build it for wasm32-wasip2",
        _ if bytes.trim_ascii_start().starts_with(b"(") => {
            "WebAssembly text; translate it with `wat2wasm` or `wasm-tools parse`"
        }
        _ => "a file that is not WebAssembly",
    };
    Err(ComposeError::NotAComponent { found })
}

/// The package, the interface and the version of `package:name/interface@version`.
fn parts(name: &str) -> Option<(&str, &str, Option<&str>)> {
    let (path, version) = match name.split_once('@') {
        Some((path, version)) => (path, Some(version)),
        None => (name, None),
    };
    let (package, interface) = path.split_once('/')?;
    Some((package, interface, version))
}

/// Whether `name` is this interface, in any version.
fn is_of(name: &str, interface: &str) -> bool {
    name.split('@').next() == Some(interface)
}

fn is_newer(name: &str) -> bool {
    let (contract, known) = CONTRACT;
    let Some((package, _, Some(version))) = parts(name) else {
        return false;
    };
    let mut numbers = version.splitn(3, '.').map(|part| {
        let digits = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        part[..digits].parse().unwrap_or(0)
    });
    let mut next = || numbers.next().unwrap_or(0);
    package == contract && (next(), next(), next()) > known
}

fn is_offered(import: &str) -> bool {
    let Some((package, interface, version)) = parts(import) else {
        return false;
    };
    match package {
        // Whether the shim has it is seen when it is connected.
        package if package == CONTRACT.0 => true,
        "wasi:keyvalue" => version == Some("0.2.0-draft2"),
        "wasi:config" => version == Some("0.2.0-draft-2024-09-27"),
        // A handler is not an HTTP server itself.
        "wasi:http" if !matches!(interface, "types" | "outgoing-handler") => false,
        package if package.starts_with("wasi:") => {
            let stable = version.is_some_and(|version| {
                version.starts_with("0.2.") && !version.contains(['-', '+'])
            });
            OFFERED.contains(&package) && stable
        }
        package => OFFERED.contains(&package) || package.starts_with("spin:"),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component with these imports and exports, each an interface of one function.
    fn component(imports: &[&str], exports: &[&str]) -> Vec<u8> {
        let mut text = String::from("(component\n");
        for (index, import) in imports.iter().enumerate() {
            text += &format!(
                "(import \"{import}\" (instance $import{index} (export \"call\" (func))))\n"
            );
        }
        text += "(core module $code (func (export \"call\")))
            (core instance $guest (instantiate $code))
            (func $call (canon lift (core func $guest \"call\")))
            (instance $interface (export \"call\" (func $call)))\n";
        for export in exports {
            text += &format!("(export \"{export}\" (instance $interface))\n");
        }
        wat::parse_str(text + ")").unwrap()
    }

    const STATE: &str = "tidegate:realtime/state@0.1.0";
    const MANIFEST: &str = "tidegate:realtime/manifest@0.1.0";
    const ACTOR: &str = "tidegate:realtime/actor@0.1.0";
    const ACCESS: &str = "tidegate:realtime/access@0.1.0";
    const CONTROL: &str = "tidegate:spin/control@0.1.0";
    const HTTP: &str = "wasi:http/incoming-handler@0.2.6";
    const SQLITE: &str = "fermyon:spin/sqlite@2.0.0";

    fn composed(handler: &[u8]) -> Result<Vec<u8>, ComposeError> {
        let shim = component(&[SQLITE], &[STATE, ACCESS, CONTROL]);
        let gateway = component(&[MANIFEST, ACTOR, ACCESS, CONTROL], &[HTTP]);
        let pieces = Pieces {
            shim: &shim,
            gateway: &gateway,
        };
        compose(handler, pieces)
    }

    fn refusal(handler: &[u8]) -> String {
        composed(handler).unwrap_err().to_string()
    }

    fn imports_and_exports(component: &[u8]) -> (Vec<String>, Vec<String>) {
        let mut graph = CompositionGraph::new();
        let part = Part::register(&mut graph, "test:composite", component).unwrap();
        (part.imports, part.exports)
    }

    fn holds(whole: &[u8], part: &[u8]) -> bool {
        whole.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn the_handler_stands_unchanged_in_the_composite() {
        let handler = component(&[STATE], &[MANIFEST, ACTOR]);
        assert!(holds(&composed(&handler).unwrap(), &handler));
    }

    #[test]
    fn only_what_spin_offers_is_left_to_import_and_only_http_is_exported() {
        let random = "wasi:random/random@0.2.6";
        let handler = component(&[STATE, random], &[MANIFEST, ACTOR, ACCESS]);
        let (mut imports, exports) = imports_and_exports(&composed(&handler).unwrap());
        imports.sort();
        assert_eq!(imports, [SQLITE, random]);
        assert_eq!(exports, [HTTP]);
    }

    #[test]
    fn a_handler_without_a_guard_has_the_shims() {
        let handler = component(&[], &[MANIFEST, ACTOR]);
        let (imports, _) = imports_and_exports(&composed(&handler).unwrap());
        assert_eq!(imports, [SQLITE]);
    }

    #[test]
    fn what_nothing_on_spin_asks_for_is_said() {
        let migrate = "tidegate:realtime/migrate@0.1.0";
        let handler = component(&[STATE], &[MANIFEST, ACTOR, migrate]);
        let [note] = unheeded(&handler).unwrap()[..] else {
            panic!("one");
        };
        assert!(note.contains("migrate") && note.contains("state.unfit"));
        assert!(composed(&handler).is_ok());
        assert!(
            unheeded(&component(&[STATE], &[MANIFEST, ACTOR]))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn what_is_no_component_is_said() {
        let module = wat::parse_str("(module)").unwrap();
        assert!(refusal(&module).contains("wasm32-wasip2"));
        assert!(refusal(b"(component)").contains("text"));
        assert!(refusal(b"").contains("not WebAssembly"));
        let mut broken = component(&[], &[MANIFEST, ACTOR]);
        broken.truncate(broken.len() - 3);
        assert!(refusal(&broken).contains("cannot be read"));
    }

    #[test]
    fn what_is_no_handler_is_said() {
        let text = refusal(&component(&[], &[MANIFEST, "other:thing/here@1.0.0"]));
        assert!(
            text.contains("tidegate:realtime/actor") && text.contains("other:thing"),
            "{text}"
        );
        assert!(refusal(&component(&[], &[])).contains("none"));
    }

    #[test]
    fn a_handler_of_a_newer_contract_is_refused() {
        for newer in [
            "tidegate:realtime/state@0.1.1",
            "tidegate:realtime/state@0.2.0",
            "tidegate:realtime/state@1.0.0-rc.1",
            "tidegate:realtime/later@0.1.0",
        ] {
            let text = refusal(&component(&[newer], &[MANIFEST, ACTOR]));
            assert!(text.contains("newer") && text.contains(newer), "{text}");
        }
    }

    #[test]
    fn what_spin_does_not_offer_is_named() {
        let wrong = [
            "wasi:nn/tensor@0.2.0",
            "wasi:http/incoming-handler@0.2.0",
            "wasi:clocks/system-clock@0.3.0",
            "acme:tools/magic",
        ];
        let right = ["wasi:io/streams@0.2.9", "wasi:keyvalue/store@0.2.0-draft2"];
        let handler = component(&[&wrong[..], &right[..]].concat(), &[MANIFEST, ACTOR]);
        let text = refusal(&handler);
        assert!(wrong.iter().all(|name| text.contains(name)), "{text}");
        assert!(!right.iter().any(|name| text.contains(name)), "{text}");
    }

    #[test]
    fn an_interface_of_another_shape_is_named() {
        let handler = format!(
            "(component (import \"{STATE}\" (instance (export \"other\" (func))))
                (instance $empty) (export \"{MANIFEST}\" (instance $empty))
                (export \"{ACTOR}\" (instance $empty)))"
        );
        let text = refusal(&wat::parse_str(handler).unwrap());
        assert!(text.contains(STATE) && text.contains("other"), "{text}");
    }
}
