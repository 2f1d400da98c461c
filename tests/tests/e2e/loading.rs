//! What a component may cost before it serves: it is looked at before it is compiled, compiled
//! under limits beside the host, and has its instances charged with all that they may hold.

use http::Method;
use serde_json::{Value, json};
use tidegate_tests::cli::tidegate;
use tidegate_tests::guest::Export;
use tidegate_tests::guest::hostile::{self, PAGE};
use tidegate_tests::{Folder, Host, PATIENCE, Response, actor, guest};

const MIB: usize = 1 << 20;

/// A host that serves one component, with these settings.
async fn host<const N: usize>(settings: [&str; N]) -> Host {
    let folder = Folder::new();
    let base = folder.path().join("base.wasm");
    std::fs::write(&base, named("base")).expect("writing a component");
    let builder = Host::builder().file("base", &base);
    let builder = settings
        .iter()
        .fold(builder, |builder, setting| builder.set(setting));
    builder.start().await
}

/// A small component with this actor type.
fn named(actor: &str) -> Vec<u8> {
    let manifest = format!(
        r#"{{"tidegate": "0.1", "actors": {{"{actor}": {{"methods": {{"run": {{}}}}}}}}}}"#
    );
    guest::component_saying(&manifest, "", "")
}

async fn put(host: &Host, name: &str, bytes: Vec<u8>) -> Response {
    let request = host.admin(Method::PUT, &format!("/components/{name}"));
    request.body(bytes).send().await
}

/// Waits until something holds that nobody tells of.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let held = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    let held = tokio::time::timeout(PATIENCE, held).await;
    held.unwrap_or_else(|_| panic!("{what} did not happen"));
}

#[tokio::test]
async fn what_is_too_much_is_refused_before_it_is_compiled() {
    // Whatever is compiled nevertheless takes more than this and says so.
    let host = host(["engine.compile-memory-bytes=67108864"]).await;
    let cases = [
        ("max-functions", hostile::many_functions(200_000)),
        ("max-function-bytes", hostile::long_function(2 * MIB)),
        ("max-modules", hostile::many_components(20_000)),
        ("max-nesting", hostile::deep_components(90)),
        ("max-items", hostile::doubling_components(30)),
        ("max-items", hostile::many_exports(300_000)),
    ];
    for (setting, component) in cases {
        let refused = put(&host, "small", component).await;
        let error = refused.failed(413, "component.too-large");
        let message = error["message"].as_str().unwrap_or_default();
        let setting = format!("engine.{setting}");
        assert!(message.contains(&setting), "{message}");
        assert_eq!(error["params"]["which"], setting);
        assert!(error["params"]["limit"].is_u64());
    }
}

#[tokio::test]
async fn a_missing_export_is_found_before_anything_is_compiled() {
    let outcome = tidegate(["describe", "foreign.wasm"])
        .arg("--set=engine.compile-memory-bytes=67108864")
        .arg("--set=engine.cache-dir=")
        .file("foreign.wasm", hostile::foreign(100_000))
        .run()
        .await;
    outcome.failed([
        "does not export `tidegate:realtime/manifest@0.1.0`",
        "nothing",
    ]);
}

#[tokio::test]
async fn a_component_serves_with_whatever_it_exports() {
    let host = host([]).await;
    let nothing = r#"{"tidegate": "0.1", "actors": {}}"#;
    let combinations: [(&str, &[Export]); 4] = [
        ("bare", &[]),
        ("guard", &[Export::Access]),
        ("tested", &[Export::SelfTest]),
        ("all", &Export::ALL),
    ];
    for (name, exports) in combinations {
        let component = guest::component_exporting(nothing, exports);
        let deployed = put(&host, name, component).await;
        assert_eq!(deployed.status, 200, "{deployed:?}");
    }
    let manifest = r#"{"tidegate": "0.1", "actors": {"small": {
        "methods": {"run": {}}, "access": ["authorize", "project"]
    }}}"#;
    let component = guest::component_exporting(manifest, &[Export::Actor, Export::Access]);
    let deployed = put(&host, "guarded", component).await;
    assert_eq!(deployed.status, 200, "{deployed:?}");
    let mut socket = host.connect().await;
    let small = actor("small", "a");
    let shown = socket.subscribe_state(&small).await;
    assert_eq!(shown["state"], json!({}));
    socket.call(&small, "run", Value::Null).await.result();
}

#[tokio::test]
async fn what_a_manifest_declares_must_be_exported() {
    let host = host([]).await;
    let cases: [(&str, &[Export], [&str; 2]); 2] = [
        (
            r#"{"tidegate": "0.1", "actors": {"small": {"methods": {"run": {}}}}}"#,
            &[Export::Access],
            ["`small`", "`tidegate:realtime/actor@0.1.0`"],
        ),
        (
            r#"{"tidegate": "0.1", "actors": {"small": {"access": ["authorize"]}}}"#,
            &[Export::Actor],
            ["`small`", "`tidegate:realtime/access@0.1.0`"],
        ),
    ];
    for (manifest, exports, named) in cases {
        let component = guest::component_exporting(manifest, exports);
        let refused = put(&host, "small", component).await;
        let error = refused.failed(422, "component.invalid");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(named.iter().all(|name| message.contains(name)), "{message}");
    }
}

#[tokio::test]
async fn what_a_component_no_longer_claims_another_may() {
    let host = host([]).await;
    put(&host, "other", named("base"))
        .await
        .failed(409, "component.conflict");
    let nothing = r#"{"tidegate": "0.1", "actors": {}}"#;
    let bare = put(&host, "base", guest::component_exporting(nothing, &[])).await;
    assert_eq!(bare.status, 200, "{bare:?}");
    let deployed = put(&host, "other", named("base")).await;
    assert_eq!(deployed.status, 200, "{deployed:?}");
}

#[tokio::test]
async fn a_message_lists_some_of_very_many_names() {
    let host = host([]).await;
    let exports: String = (0..5_000)
        .map(|number| format!(r#"(export "e{number}" (instance $i))"#))
        .collect();
    let component = guest::parsed(&format!("(component (instance $i) {exports})"));
    let error = put(&host, "many", component)
        .await
        .failed(422, "component.invalid");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.ends_with("and 4990 more"), "{message}");
}

#[tokio::test]
async fn compiling_takes_no_more_memory_than_it_may() {
    let host = host(["engine.compile-memory-bytes=134217728"]).await;
    let refused = put(&host, "small", hostile::long_function(MIB - 4096)).await;
    let error = refused.failed(413, "component.too-large");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("engine.compile-memory-bytes"), "{message}");
    // The host is as well as before.
    let deployed = put(&host, "small", guest::component("", "")).await;
    assert_eq!(deployed.status, 200, "{deployed:?}");
}

#[tokio::test]
async fn compiling_takes_no_longer_than_it_may() {
    for limit in [
        "engine.compile-timeout-ms=300",
        "admin.compile-timeout-ms=300",
    ] {
        let long = "engine.max-function-bytes=67108864";
        let small = "engine.small-component-bytes=67108864";
        let memory = "engine.compile-memory-bytes=8589934592";
        let host = host([long, small, memory, limit]).await;
        let slow = hostile::long_function(4 * MIB);
        let refused = put(&host, "small", slow).await;
        let error = refused.failed(504, "component.timeout");
        until("the compiler's end", || host.children().is_empty()).await;
        let (setting, _) = limit.split_once('=').expect("a setting");
        let message = error["message"].as_str().unwrap_or_default();
        let is_of_the_upload = setting.starts_with("admin.");
        assert!(is_of_the_upload || message.contains(setting), "{message}");
    }
}

#[tokio::test]
async fn what_an_upload_compiles_to_has_a_limit() {
    let host = host(["engine.max-compiled-bytes=1000"]).await;
    let refused = put(&host, "limited", named("limited")).await;
    let error = refused.failed(413, "component.too-large");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("engine.max-compiled-bytes"), "{message}");
}

/// A host that takes very long functions, one of which is enough to keep a compiler busy.
async fn patient() -> Host {
    host([
        "engine.max-function-bytes=67108864",
        "engine.small-component-bytes=100000",
        "engine.compile-memory-bytes=8589934592",
    ])
    .await
}

/// Begins uploads that are compiled for longer than a test takes, and waits until they are as
/// far as they get.
async fn begin_slow(host: &Host, count: usize) -> Vec<tidegate_tests::EventStream> {
    let slow = hostile::long_function(4 * MIB);
    let mut streams = Vec::new();
    for number in 0..count {
        let request = host
            .admin(Method::PUT, &format!("/components/slow-{number}"))
            .header("accept", "text/event-stream")
            .body(slow.clone());
        let mut stream = request.stream().await;
        let stage = stream.expect("progress").await.data;
        assert_eq!(stage["stage"], "compiling");
        streams.push(stream);
    }
    until("a compiler's start", || !host.children().is_empty()).await;
    streams
}

#[tokio::test]
async fn small_components_pass_large_ones_that_take_long() {
    let host = patient().await;
    let slow = begin_slow(&host, 3).await;
    for name in ["small", "other"] {
        let deployed = put(&host, name, named(name)).await;
        assert_eq!(deployed.status, 200, "{deployed:?}");
    }
    assert_eq!(
        host.children().len(),
        1,
        "the slow ones are compiled one by one"
    );
    drop(slow);
}

#[tokio::test]
async fn a_compiler_ends_with_its_host() {
    let host = patient().await;
    let _slow = begin_slow(&host, 1).await;
    let compiler = host.children()[0];
    host.kill().await;
    let process = format!("/proc/{compiler}/stat");
    // Whoever inherits it may not have looked after it yet.
    let ended = || match std::fs::read_to_string(&process) {
        Ok(stat) => stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z')),
        Err(_) => true,
    };
    until("the compiler's end", ended).await;
}

#[tokio::test]
async fn a_compiler_is_told_nothing_that_does_not_concern_it() {
    let host = patient().await;
    let _slow = begin_slow(&host, 1).await;
    let compiler = host.children()[0];
    let read = |file: &str| {
        let text = std::fs::read_to_string(format!("/proc/{compiler}/{file}"));
        text.expect("a process that runs")
    };
    let is_limited = || {
        let limits = read("limits");
        let mut data = limits
            .lines()
            .filter(|line| line.starts_with("Max data size"));
        data.any(|line| line.contains("8589934592"))
    };
    until("the limit", is_limited).await;
    let environment = read("environ");
    assert!(!environment.contains("HOME"), "{environment}");
    let arguments = read("cmdline");
    assert!(
        !arguments.contains(tidegate_tests::ADMIN_KEY),
        "{arguments}"
    );
}

#[tokio::test]
async fn a_start_is_under_the_same_limits() {
    let folder = Folder::new();
    let file = folder.path().join("small.wasm");
    std::fs::write(&file, hostile::long_function(MIB - 4096)).expect("writing a component");
    for (limit, said) in [
        (
            "engine.compile-memory-bytes=134217728",
            "compile-memory-bytes",
        ),
        ("engine.small-compile-cpu-ms=1", "small-compile-cpu-ms"),
    ] {
        let host = Host::builder().set(limit).file("small", &file);
        host.refused().await.says(["`small`", said]);
    }
}

#[tokio::test]
async fn memory_that_instances_begin_with_counts() {
    // Data in so few bytes of so many pages takes long to compile.
    for (component, pages) in [
        (hostile::filled_by_a_call(960), 960),
        (hostile::filled_at_the_start(960), 960),
        (hostile::filled_by_sparse_data(288), 288),
    ] {
        let folder = Folder::new();
        let file = folder.path().join("small.wasm");
        std::fs::write(&file, component).expect("writing a component");
        // As much as four of them may have, of twenty.
        let budget = pages * PAGE * 4;
        let host = Host::builder()
            .file("small", &file)
            .set(&format!("engine.guest-memory-bytes={budget}"))
            .start()
            .await;
        let before = host.resident_bytes();
        let mut socket = host.connect().await;
        // More than once, since an instance that gave way is made again.
        for _ in 0..2 {
            for number in 0..20 {
                let small = actor("small", &number.to_string());
                let reply = socket.call(&small, "run", None).await;
                assert_eq!(reply.frame.get("error"), None, "{reply:?}");
            }
        }
        let grown = host.peak_resident_bytes().saturating_sub(before);
        assert!(grown < budget + 32 * MIB, "{grown} bytes of {budget}");
    }
}

#[tokio::test]
async fn tables_and_stacks_count() {
    for (component, each) in [
        (hostile::filled_table(100_000), 800_000),
        (hostile::deep_recursion(4_000), 256_000),
    ] {
        let folder = Folder::new();
        let file = folder.path().join("small.wasm");
        std::fs::write(&file, component).expect("writing a component");
        let budget = 16 * MIB;
        let host = Host::builder()
            .file("small", &file)
            .set(&format!("engine.guest-memory-bytes={budget}"))
            .start()
            .await;
        let mut socket = host.connect().await;
        let call = async |socket: &mut tidegate_tests::Socket, number: usize| {
            let small = actor("small", &number.to_string());
            let reply = socket.call(&small, "run", None).await;
            assert_eq!(reply.frame.get("error"), None, "{reply:?}");
        };
        call(&mut socket, 0).await;
        let before = host.resident_bytes();
        for number in 0..200 {
            call(&mut socket, number).await;
        }
        let grown = host.resident_bytes().saturating_sub(before);
        assert!(grown < budget + 8 * MIB, "{grown} bytes of {}", 200 * each);
    }
}

#[tokio::test]
async fn a_component_that_could_never_have_an_instance_is_refused() {
    let host = host(["engine.guest-memory-bytes=33554432"]).await;
    let refused = put(&host, "small", hostile::filled_by_a_call(960)).await;
    refused.failed(503, "host.memory");
    let listed = host.admin(Method::GET, "/components").send().await.json();
    assert_eq!(listed["components"].as_array().map(Vec::len), Some(1));
}
