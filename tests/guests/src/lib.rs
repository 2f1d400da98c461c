//! Small handlers written in WebAssembly text: for what Rust cannot express, and for tests
//! to which compiling a real handler would be waste.

pub mod hostile;

use std::fmt::Write as _;

/// Where the manifest lies in the guest's memory, behind zeros that stand for empty results.
const MANIFEST: usize = 256;

/// What a component says whose one actor type `small` has the method `run`.
const SMALL: &str = r#"{"tidegate": "0.1", "actors": {"small": {"methods": {"run": {}}}}}"#;

/// A component whose one actor type `small` has the method `run`, which does what these
/// instructions say and returns nothing. `module` holds further definitions of the core
/// module.
pub fn component(module: &str, run: &str) -> Vec<u8> {
    component_saying(SMALL, module, run)
}

/// The same with this manifest.
pub fn component_saying(manifest: &str, module: &str, run: &str) -> Vec<u8> {
    component_beside(manifest, "", module, run)
}

/// The same, behind these definitions of the component.
fn component_beside(manifest: &str, beside: &str, module: &str, run: &str) -> Vec<u8> {
    let length = manifest.len();
    let heap = (MANIFEST + length).next_multiple_of(256);
    let described = [MANIFEST, length].map(|number| (number as u32).to_le_bytes());
    let (described, manifest) = (
        escaped(described.as_flattened()),
        escaped(manifest.as_bytes()),
    );
    let hooks = ["activate", "deactivate", "connect", "disconnect"];
    let (mut lifted, mut exported) = (String::new(), String::new());
    for hook in hooks {
        // Writing to a string cannot fail.
        let _ = writeln!(
            lifted,
            r#"(func ${hook} (param "turn" $turn) (result (result (error $failure)))
                (canon lift (core func $guest "hook") (memory $memory)
                    (realloc $realloc)))"#
        );
        let _ = writeln!(exported, r#"(export "{hook}" (func ${hook}))"#);
    }
    let text = format!(
        r#"(component
        (import "tidegate:realtime/types@0.1.0" (instance $types
            (type $failure-fields (record
                (field "code" string) (field "message" (option string))
                (field "params" (option string)) (field "http-status" (option u16))))
            (export "failure" (type (eq $failure-fields)))
            (type $client-fields (record
                (field "connection" (option string)) (field "user" (option string))))
            (export "client" (type $client (eq $client-fields)))
            (type $actor-fields (record (field "actor" string) (field "id" string)))
            (export "actor-ref" (type $actor (eq $actor-fields)))
            (type $firing-fields (record (field "id" u64) (field "due-ms" u64)))
            (export "firing" (type $firing (eq $firing-fields)))
            (type $origin-cases (variant
                (case "client" $client) (case "actor" $actor) (case "timer" $firing)
                (case "cron" $firing) (case "host")))
            (export "origin" (type $origin (eq $origin-cases)))
            (type $turn-fields (record
                (field "this" $actor) (field "turn-id" string) (field "origin" $origin)
                (field "now-ms" u64) (field "deadline-ms" u64) (field "attempt" u32)
                (field "key" (option string)) (field "traceparent" (option string))))
            (export "turn" (type (eq $turn-fields)))))
        (alias export $types "failure" (type $failure))
        (alias export $types "turn" (type $turn))
        {beside}
        (core module $module
            (memory (export "memory") 4)
            (global $free (mut i32) (i32.const {heap}))
            (data (i32.const 8) "{described}")
            (data (i32.const {MANIFEST}) "{manifest}")
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                ;; Nothing is freed, and everything is aligned for anything.
                (global.get $free)
                (global.set $free (i32.and (i32.const -8) (i32.add (i32.const 7)
                    (i32.add (global.get $free) (local.get 3))))))
            (func (export "describe") (result i32) (i32.const 8))
            (func (export "hook") (param i32) (result i32) (i32.const 64))
            {module}
            (func (export "invoke") (param i32) (result i32)
                {run}
                (i32.const 64)))
        (core instance $guest (instantiate $module))
        (alias core export $guest "memory" (core memory $memory))
        (alias core export $guest "realloc" (core func $realloc))
        (func $describe (result string)
            (canon lift (core func $guest "describe") (memory $memory)))
        (func $invoke
            (param "turn" $turn) (param "method" string) (param "input" (option string))
            (result (result (option string) (error $failure)))
            (canon lift (core func $guest "invoke") (memory $memory)
                (realloc $realloc)))
        {lifted}
        (instance $manifest (export "describe" (func $describe)))
        (instance $handler (export "invoke" (func $invoke)) {exported})
        (export "tidegate:realtime/manifest@0.1.0" (instance $manifest))
        (export "tidegate:realtime/actor@0.1.0" (instance $handler)))"#
    );
    parsed(&text)
}

/// The component that this text is.
pub fn parsed(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Bytes as the text format writes them in strings.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\{byte:02x}");
        text
    })
}
