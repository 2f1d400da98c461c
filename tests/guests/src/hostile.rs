//! Components that are meant to cost a host much: while they are compiled, while instances of
//! them are made, while they run.
//!
//! Each is a handler that a host would serve, with the one actor type `small` and its method
//! `run`, but for what is too much of it.

use std::fmt::Write as _;

use crate::{SMALL, component, component_beside, component_saying, parsed};

/// Bytes of a page of WebAssembly.
pub const PAGE: usize = 64 << 10;

/// So many functions that do nothing.
pub fn many_functions(count: usize) -> Vec<u8> {
    component(&"(func)".repeat(count), "")
}

/// One function of at least so many bytes, a long sum: which takes seconds for each MiB.
pub fn long_function(bytes: usize) -> Vec<u8> {
    // A constant and an addition take three bytes.
    let sum = "i32.const 7 i32.add ".repeat(bytes.div_ceil(3));
    component(
        &format!("(func (param i32) (result i32) local.get 0 {sum})"),
        "",
    )
}

/// So many empty components beside each other.
pub fn many_components(count: usize) -> Vec<u8> {
    component_beside(SMALL, &"(component)".repeat(count), "", "")
}

/// Empty components, so many within each other.
pub fn deep_components(depth: usize) -> Vec<u8> {
    let nested = format!("{}{}", "(component ".repeat(depth), ")".repeat(depth));
    component_beside(SMALL, &nested, "", "")
}

/// A component in a component, and so on, each of which makes two instances of the one before:
/// two to the power of `depth` instances of the first.
pub fn doubling_components(depth: usize) -> Vec<u8> {
    let mut nested =
        "(component $c0 (core module $m (func)) (core instance (instantiate $m)))".to_owned();
    for level in 1..=depth {
        let before = level - 1;
        let _ = write!(
            nested,
            "(component $c{level}
                (alias outer 1 $c{before} (component $inner))
                (instance (instantiate $inner)) (instance (instantiate $inner)))"
        );
    }
    let _ = write!(nested, "(instance (instantiate $c{depth}))");
    component_beside(SMALL, &nested, "", "")
}

/// So many exports beside those that the contract wants.
pub fn many_exports(count: usize) -> Vec<u8> {
    let exports = (0..count).fold(String::new(), |mut exports, number| {
        let _ = write!(exports, r#"(export "e{number}" (func $odd))"#);
        exports
    });
    component(&format!("(func $odd) {exports}"), "")
}

/// No export of the contract, and so many functions that do nothing.
pub fn foreign(functions: usize) -> Vec<u8> {
    let functions = "(func)".repeat(functions);
    parsed(&format!("(component (core module {functions}))"))
}

/// Pages of memory from the start, of which a call of `run` writes to every one.
pub fn filled_by_a_call(pages: usize) -> Vec<u8> {
    let module = format!("(memory $large {pages})");
    component(&module, &fill(pages))
}

/// Pages of memory that are written to before anything is called.
pub fn filled_at_the_start(pages: usize) -> Vec<u8> {
    let fill = fill(pages);
    let module = format!("(memory $large {pages}) (func $fill {fill}) (start $fill)");
    component(&module, "")
}

fn fill(pages: usize) -> String {
    let bytes = pages * PAGE;
    format!("(memory.fill $large (i32.const 0) (i32.const 1) (i32.const {bytes}))")
}

/// Pages of memory of which a short file fills every system's page, with one byte each.
pub fn filled_by_sparse_data(pages: usize) -> Vec<u8> {
    let mut module = format!("(memory $large {pages})");
    for place in (0..pages * PAGE).step_by(4 << 10) {
        let _ = write!(module, r#"(data (memory $large) (i32.const {place}) "x")"#);
    }
    component(&module, "")
}

/// A table from the start whose every element a call of `run` writes to.
pub fn filled_table(elements: usize) -> Vec<u8> {
    let module = format!("(table $large {elements} funcref) (func $odd) (elem declare func $odd)");
    let run = format!("(table.fill $large (i32.const 0) (ref.func $odd) (i32.const {elements}))");
    component(&module, &run)
}

/// A call of `run` goes so many calls deep, each of which takes some 64 bytes of the stack or
/// more, before it comes back.
pub fn deep_recursion(depth: usize) -> Vec<u8> {
    let module = "(func $deeper (param i32) (param i64) (result i64)
        (if (result i64) (i32.eqz (local.get 0))
            (then (local.get 1))
            (else (i64.add (local.get 1)
                (call $deeper (i32.sub (local.get 0) (i32.const 1)) (local.get 1))))))";
    component(
        module,
        &format!("(drop (call $deeper (i32.const {depth}) (i64.const 1)))"),
    )
}

/// A name of a function that ends its line and steers a terminal, on the stack when `run`
/// crashes.
pub fn forging_backtrace(forged: &str) -> Vec<u8> {
    // The text format takes any characters in the names of the names section.
    let name: String = forged.bytes().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\{byte:02x}");
        text
    });
    let module = format!(r#"(func $crash (@name "{name}") unreachable)"#);
    component_saying(SMALL, &module, "(call $crash)")
}
