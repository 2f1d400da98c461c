//! Files that cost a host more to compile than their length says, as an attacker would make
//! them: written by hand, because no compiler makes such.
//!
//! The binary format is that of the WebAssembly core specification, and of the component model's
//! `Binary.md` around it.

/// What a core module begins with.
const MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";
/// What a component begins with.
const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";
/// Sections of a component.
const CORE_MODULE: u8 = 1;
const NESTED_COMPONENT: u8 = 4;

/// An unsigned number in LEB128.
fn number(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn section(out: &mut Vec<u8>, id: u8, content: &[u8]) {
    out.push(id);
    number(out, content.len());
    out.extend_from_slice(content);
}

/// A module of so many functions without parameters and results, of this body.
fn module(functions: usize, body: &[u8]) -> Vec<u8> {
    let mut module = MODULE.to_vec();
    // One type: no parameters, no results.
    section(&mut module, 1, &[1, 0x60, 0, 0]);
    let mut types = Vec::new();
    number(&mut types, functions);
    types.resize(types.len() + functions, 0);
    section(&mut module, 3, &types);
    let mut code = Vec::new();
    number(&mut code, functions);
    for _ in 0..functions {
        number(&mut code, body.len());
        code.extend_from_slice(body);
    }
    section(&mut module, 10, &code);
    module
}

fn component_of(module: &[u8]) -> Vec<u8> {
    let mut component = COMPONENT.to_vec();
    section(&mut component, CORE_MODULE, module);
    component
}

/// A component of so many functions that do nothing.
pub(super) fn many_functions(count: usize) -> Vec<u8> {
    // No locals; `end`.
    component_of(&module(count, &[0, 0x0b]))
}

/// A component of one function of about so many bytes.
pub(super) fn one_function(bytes: usize) -> Vec<u8> {
    // One local of type i32; it is doubled, again and again.
    let step = [0x20, 0, 0x20, 0, 0x6a, 0x21, 0];
    let mut body = vec![1, 1, 0x7f];
    body.extend(step.iter().cycle().take(bytes / step.len() * step.len()));
    body.push(0x0b);
    component_of(&module(1, &body))
}

/// A component within a component, so many deep, with a module of some functions in each.
pub(super) fn nested(depth: usize, functions: usize) -> Vec<u8> {
    let module = module(functions, &[0, 0x0b]);
    (0..depth).fold(component_of(&module), |inner, _| {
        let mut outer = COMPONENT.to_vec();
        section(&mut outer, CORE_MODULE, &module);
        section(&mut outer, NESTED_COMPONENT, &inner);
        outer
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_valid() {
        let engine = wasmtime::Engine::default();
        for file in [many_functions(300), one_function(1_000), nested(5, 3)] {
            wasmtime::component::Component::new(&engine, &file).unwrap();
        }
    }
}
