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

/// A component with this manifest, whose methods do what these instructions say.
pub fn component_saying(manifest: &str, module: &str, run: &str) -> Vec<u8> {
    component_beside(manifest, "", module, run)
}

/// What a component may export beside `manifest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Export {
    /// Its methods and hooks do nothing.
    Actor,
    /// It lets one subscriber at a time see everything.
    Access,
    /// It keeps states as they are.
    Migrate,
    /// It is always fit.
    SelfTest,
}

impl Export {
    /// All of them.
    pub const ALL: [Export; 4] = [
        Export::Actor,
        Export::Access,
        Export::Migrate,
        Export::SelfTest,
    ];

    /// Its definitions in the component, the last of which is the export.
    fn text(self) -> &'static str {
        match self {
            Export::Actor => {
                r#"(func $invoke
                    (param "turn" $turn) (param "method" string) (param "input" (option string))
                    (result (result (option string) (error $failure)))
                    (canon lift (core func $guest "invoke") (memory $memory)
                        (realloc $realloc)))
                (type $hook (func (param "turn" $turn) (result (result (error $failure)))))
                (func $run-hook (type $hook)
                    (canon lift (core func $guest "hook") (memory $memory) (realloc $realloc)))
                (instance $actor
                    (export "invoke" (func $invoke))
                    (export "activate" (func $run-hook)) (export "deactivate" (func $run-hook))
                    (export "connect" (func $run-hook)) (export "disconnect" (func $run-hook)))
                (export "tidegate:realtime/actor@0.1.0" (instance $actor))"#
            }
            // Types that functions speak of have a name to be exported by.
            Export::Access => {
                r#"(type $subject-cases (enum "state" "events"))
                (export $subject "subject" (type $subject-cases))
                (type $subscription-fields (record (field "who" $client) (field "to" $subject)))
                (export $subscription "subscription" (type $subscription-fields))
                (type $view-cases (variant
                    (case "whole") (case "document" string) (case "same-as" u32) (case "nothing")))
                (export $view "view" (type $view-cases))
                (func $authorize
                    (param "this" $actor-ref) (param "who" (list $subscription))
                    (result (list (result (error $failure))))
                    (canon lift (core func $guest "one") (memory $memory) (realloc $realloc)))
                (func $project
                    (param "this" $actor-ref) (param "who" (list $client)) (result (list $view))
                    (canon lift (core func $guest "one") (memory $memory) (realloc $realloc)))
                (instance $access
                    (export "authorize" (func $authorize)) (export "project" (func $project)))
                (export "tidegate:realtime/access@0.1.0" (instance $access))"#
            }
            Export::Migrate => {
                r#"(func $migrate
                    (param "this" $actor-ref) (param "state" string) (param "version" u32)
                    (result (result string (error $failure)))
                    (canon lift (core func $guest "migrate") (memory $memory)
                        (realloc $realloc)))
                (instance $migrations (export "migrate" (func $migrate)))
                (export "tidegate:realtime/migrate@0.1.0" (instance $migrations))"#
            }
            Export::SelfTest => {
                r#"(func $check (result (result (error $failure)))
                    (canon lift (core func $guest "check") (memory $memory)))
                (instance $self-test (export "check" (func $check)))
                (export "tidegate:realtime/self-test@0.1.0" (instance $self-test))"#
            }
        }
    }
}

/// A component with this manifest that exports these interfaces beside it.
pub fn component_exporting(manifest: &str, exports: &[Export]) -> Vec<u8> {
    component_of(manifest, "", "", "", exports)
}

/// What [`component_saying`] makes, behind these definitions of the component.
fn component_beside(manifest: &str, beside: &str, module: &str, run: &str) -> Vec<u8> {
    component_of(manifest, beside, module, run, &[Export::Actor])
}

fn component_of(
    manifest: &str,
    beside: &str,
    module: &str,
    run: &str,
    exports: &[Export],
) -> Vec<u8> {
    let length = manifest.len();
    let heap = (MANIFEST + length).next_multiple_of(256);
    let described = [MANIFEST, length].map(|number| (number as u32).to_le_bytes());
    let (described, manifest) = (
        escaped(described.as_flattened()),
        escaped(manifest.as_bytes()),
    );
    let exports: String = exports.iter().map(|export| export.text()).collect();
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
        (alias export $types "client" (type $client))
        (alias export $types "actor-ref" (type $actor-ref))
        (alias export $types "turn" (type $turn))
        {beside}
        (core module $module
            (memory (export "memory") 4)
            (global $free (mut i32) (i32.const {heap}))
            (data (i32.const 8) "{described}")
            ;; A list of one element, which is all zeros.
            (data (i32.const 16) "\40\00\00\00\01\00\00\00")
            (data (i32.const {MANIFEST}) "{manifest}")
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                ;; Nothing is freed, and everything is aligned for anything.
                (global.get $free)
                (global.set $free (i32.and (i32.const -8) (i32.add (i32.const 7)
                    (i32.add (global.get $free) (local.get 3))))))
            (func (export "describe") (result i32) (i32.const 8))
            (func (export "hook") (param i32) (result i32) (i32.const 64))
            (func (export "check") (result i32) (i32.const 64))
            (func (export "one") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 16))
            (func (export "migrate") (param i32 i32 i32 i32) (param $state i32) (param $length i32)
                (param i32) (result i32)
                (i32.store (i32.const 28) (local.get $state))
                (i32.store (i32.const 32) (local.get $length))
                (i32.const 24))
            {module}
            (func (export "invoke") (param i32) (result i32)
                {run}
                (i32.const 64)))
        (core instance $guest (instantiate $module))
        (alias core export $guest "memory" (core memory $memory))
        (alias core export $guest "realloc" (core func $realloc))
        (func $describe (result string)
            (canon lift (core func $guest "describe") (memory $memory)))
        (instance $manifest (export "describe" (func $describe)))
        (export "tidegate:realtime/manifest@0.1.0" (instance $manifest))
        {exports})"#
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
