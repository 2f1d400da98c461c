//! Components that cannot be loaded: the host does not start, and says which item is wrong
//! and what it expected.

use std::path::PathBuf;

use serde_json::{Value, json};
use tidegate_tests::{Host, Refusal, guest, handlers_folder};

/// A host that is given a component of these bytes.
async fn given(bytes: &[u8]) -> Refusal {
    let file = Scratch::new(bytes);
    Host::builder().file("suspect", &file.0).refused().await
}

async fn given_text(wat: &str) -> Refusal {
    given(&wat::parse_str(wat).expect("well-formed text")).await
}

/// A host that is given a component with this manifest.
async fn described(manifest: &str) -> Refusal {
    Host::builder()
        .component("hostile")
        .variable("DESCRIBE", manifest)
        .limit("turn-deadline-ms", 500)
        .refused()
        .await
}

/// A file that is removed with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new(bytes: &[u8]) -> Scratch {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidegate-suspect-{}-{number}.wasm", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).expect("writing a component");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn a_file_that_is_not_wasm_is_refused() {
    for bytes in [&b""[..], b"#!/bin/sh\n", b"\0as", &[0xff; 100]] {
        given(bytes)
            .await
            .says(["suspect", "not a WebAssembly file", "expected"]);
    }
}

#[tokio::test]
async fn a_core_module_is_refused() {
    let refusal = given_text("(module)").await;
    refusal.says(["suspect", "a core WebAssembly module, expected a component"]);
}

#[tokio::test]
async fn a_damaged_component_is_refused() {
    let whole = wat::parse_str("(component (component) (component))").expect("well-formed text");
    for length in [9, whole.len() - 1] {
        given(&whole[..length])
            .await
            .says(["suspect", "not a valid component"]);
    }
}

#[tokio::test]
async fn a_missing_export_is_named() {
    let refusal = given_text("(component)").await;
    refusal.says(["suspect", "`tidegate:realtime/manifest@0.1.0`"]);
    let manifest = r#"{"tidegate": "0.1", "actors": {"small": {}}}"#;
    let refusal = given(&guest::component_exporting(manifest, &[])).await;
    refusal.says(["suspect", "`small`", "`tidegate:realtime/actor@0.1.0`"]);
}

#[tokio::test]
async fn an_unknown_import_is_named() {
    let refusal = given_text(r#"(component (import "acme:things/widget@1.0.0" (instance)))"#).await;
    refusal.says([
        "suspect",
        "acme:things/widget@1.0.0",
        "it offers types, state, outbox",
    ]);
    let refusal =
        given_text(r#"(component (import "tidegate:realtime/teleport@0.1.0" (instance)))"#).await;
    refusal.says(["suspect", "tidegate:realtime/teleport@0.1.0"]);
}

#[tokio::test]
async fn another_version_of_the_package_is_named() {
    for wat in [
        r#"(component (import "tidegate:realtime/state@0.7.0" (instance)))"#,
        r#"(component (instance $i) (export "tidegate:realtime/manifest@0.7.0" (instance $i)))"#,
    ] {
        given_text(wat).await.says(["suspect", "@0.7.0", "0.1.0"]);
    }
}

#[tokio::test]
async fn an_export_of_another_shape_is_refused() {
    let refusal = given_text(
        r#"(component
            (instance $i)
            (export "tidegate:realtime/manifest@0.1.0" (instance $i))
            (export "tidegate:realtime/actor@0.1.0" (instance $i)))"#,
    )
    .await;
    refusal.says(["suspect", "describe"]);
}

#[tokio::test]
async fn a_component_that_crashes_while_it_describes_itself_is_refused() {
    described("trap")
        .await
        .says(["hostile", "describing itself", "no manifest today"]);
    described("import")
        .await
        .says(["hostile", "describing itself", "outside a turn"]);
    described("loop")
        .await
        .says(["hostile", "describing itself", "deadline"]);
}

/// A manifest that is fine, to be spoilt.
fn manifest() -> Value {
    json!({
        "tidegate": "0.1",
        "actors": {
            "room": {
                "state": {
                    "schema": {"type": "object", "properties": {"n": {"type": "integer"}}},
                    "initial": {"n": 0},
                },
                "methods": {"say": {"input": {"type": "object"}}},
                "events": {"said": true},
                "hooks": ["connect"],
            },
        },
    })
}

#[tokio::test]
async fn a_sound_manifest_is_taken() {
    let host = Host::builder()
        .component("hostile")
        .variable("DESCRIBE", &manifest().to_string())
        .start()
        .await;
    let read = host.get("/actors/room/1/state").send().await.json();
    assert_eq!(read["state"], json!({"n": 0}));
}

#[tokio::test]
async fn an_invalid_manifest_is_refused_at_the_place_that_is_wrong() {
    let spoilt: [(&str, Value, &str); 13] = [
        ("/tidegate", json!("0.9"), "0.1"),
        ("/tidegate", json!(1), "tidegate"),
        ("/actors", json!([]), "actors"),
        ("/actors", json!({"9lives": {}}), "9lives"),
        ("/actors", json!({"x".repeat(65): {}}), "64"),
        (
            "/actors/room/state/initial",
            json!({"n": "zero"}),
            "initial",
        ),
        (
            "/actors/room/state/schema",
            json!({"type": "nonsense"}),
            "schema",
        ),
        (
            "/actors/room/state/schema",
            json!({"$ref": "https://example.com/s.json"}),
            "$ref",
        ),
        ("/actors/room/methods", json!({"say it": {}}), "say it"),
        ("/actors/room/methods/say", json!({"inputs": {}}), "inputs"),
        (
            "/actors/room/methods/say/input",
            json!({"minimum": "x"}),
            "say",
        ),
        ("/actors/room/events/said", json!(7), "said"),
        ("/actors/room/hooks", json!(["konnect"]), "konnect"),
    ];
    for (place, value, named) in spoilt {
        let mut manifest = manifest();
        *manifest
            .pointer_mut(place)
            .expect("a place of the manifest") = value;
        let refusal = described(&manifest.to_string()).await;
        refusal.says(["hostile", "invalid manifest", named]);
    }
    described("not json")
        .await
        .says(["hostile", "invalid manifest"]);
    described("{\"tidegate\": \"0.1\", \"extra\": 1}")
        .await
        .says(["invalid manifest", "extra"]);
}

#[tokio::test]
async fn an_actor_type_has_one_component() {
    let refusal = Host::builder()
        .component("counter")
        .file("second", &handler("counter"))
        .refused()
        .await;
    refusal.says(["counter", "second"]);
}

fn handler(name: &str) -> PathBuf {
    let folder = handlers_folder();
    folder.join(name).with_extension("wasm")
}

#[tokio::test]
async fn a_component_that_is_not_there_is_named() {
    let refusal = Host::builder()
        .file("absent", &PathBuf::from("/nowhere/absent.wasm"))
        .refused()
        .await;
    refusal.says(["absent", "/nowhere/absent.wasm"]);
}

#[tokio::test]
async fn a_misspelt_limit_or_setting_is_named() {
    let refusal = Host::builder()
        .component("counter")
        .limit("memory", 1)
        .refused()
        .await;
    refusal.says(["counter", "memory"]);
    let refusal = Host::builder()
        .component("counter")
        .set("actors.idle=1")
        .refused()
        .await;
    refusal.says(["idle"]);
}

#[tokio::test]
async fn an_application_without_handlers_is_refused() {
    Host::builder()
        .refused()
        .await
        .says(["spin.toml", "tool.tidegate"]);
}

#[tokio::test]
async fn a_limit_that_is_none_is_named() {
    for deadline in [0, i64::MAX as u64] {
        let refusal = Host::builder()
            .component("counter")
            .limit("turn-deadline-ms", deadline)
            .refused()
            .await;
        refusal.says(["counter", "turn-deadline-ms"]);
        let refusal = Host::builder()
            .component("counter")
            .set(&format!("component.turn-deadline-ms={deadline}"))
            .refused()
            .await;
        refusal.says(["component.turn-deadline-ms"]);
    }
}

#[tokio::test]
async fn a_component_that_does_not_get_as_far_as_its_manifest_is_refused() {
    for (how, said) in [
        ("loop", "deadline"),
        ("wait", "deadline"),
        ("trap", "unreachable"),
    ] {
        let refusal = Host::builder()
            .component("hostile")
            .variable("INITIALISE", how)
            .limit("turn-deadline-ms", 500)
            .refused()
            .await;
        refusal.says(["hostile", said]);
    }
}

#[tokio::test]
async fn a_guard_of_another_version_is_refused() {
    let refusal = given_text(
        r#"(component
            (instance $i)
            (export "tidegate:realtime/manifest@0.1.0" (instance $i))
            (export "tidegate:realtime/actor@0.1.0" (instance $i))
            (export "tidegate:realtime/access@0.2.0" (instance $i)))"#,
    )
    .await;
    refusal.says(["suspect", "`tidegate:realtime/access@0.2.0`", "0.1.0"]);
}

#[tokio::test]
async fn a_guard_that_is_declared_must_be_there() {
    let manifest = r#"{"tidegate": "0.1", "actors": {"small": {"access": ["authorize"]}}}"#;
    let refusal = given(&guest::component_saying(manifest, "", "")).await;
    refusal.says(["`small`", "`tidegate:realtime/access@0.1.0`"]);
}

#[tokio::test]
async fn an_import_of_another_shape_is_refused() {
    for function in [
        r#"(export "token" (func (result string)))"#,
        r#"(export "token" (func (param "of" string) (result u64)))"#,
        r#"(export "telepathy" (func))"#,
    ] {
        let refusal = given_text(&format!(
            r#"(component
                (import "tidegate:realtime/state@0.1.0" (instance {function}))
                (instance $i)
                (export "tidegate:realtime/manifest@0.1.0" (instance $i))
                (export "tidegate:realtime/actor@0.1.0" (instance $i)))"#
        ))
        .await;
        let name = if function.contains("token") {
            "token"
        } else {
            "telepathy"
        };
        refusal.says(["suspect", "tidegate:realtime/state@0.1.0", name]);
    }
}

#[tokio::test]
async fn a_component_of_too_many_parts_is_refused() {
    let module = "(table 1 funcref) (table 1 funcref) (table 1 funcref)";
    let file = Scratch::new(&guest::component(module, ""));
    let given = || Host::builder().file("suspect", &file.0);
    for (limit, named) in [("tables", "table"), ("memories", "memor")] {
        let refusal = given().limit(limit, 0).refused().await;
        refusal.says(["suspect", named]);
    }
    let refusal = given().limit("tables", 2).refused().await;
    refusal.says(["suspect", "table"]);
    given()
        .limit("tables", 3)
        .limit("memories", 1)
        .start()
        .await;
}
