//! Whose a function is, by its name and by the file that it was loaded from.
//!
//! A method of a trait belongs to the crate of the type that it is for, `<tidegate::A as
//! serde::B>::c` to `tidegate`; if that is anything, to the trait's. What drops a value belongs
//! to the value's crate. A generic function belongs to the crate that has written it, whatever it
//! was made for.

use super::callgrind::Function;

/// Code without a name that was made in memory: guests, and what wasmtime's compiler has put
/// around them.
pub(super) const GUEST: &str = "compiled guest code";
/// The C library, and what the system has loaded with it.
const SYSTEM: &str = "libc";
/// The standard library in all its parts.
const STANDARD: &str = "std";
/// The allocator, which is C.
const ALLOCATOR: &str = "mimalloc";
/// Wasmtime in all its parts.
const WASMTIME: &str = "wasmtime";
/// All else.
const OTHER: &str = "unknown";

/// What stands for a file that is none.
const NO_FILE: &str = "???";
/// What glue begins with that drops a value of the type behind it.
const DROP_GLUE: [&str; 2] = ["core::ptr::drop_in_place<", "core::ptr::drop_in_place::<"];

/// The crate of a function that ran in this program.
pub(super) fn of<'a>(function: Function<'a>, program: &str) -> &'a str {
    let Function { object, name } = function;
    match object {
        NO_FILE => return GUEST,
        other if other != program => return SYSTEM,
        _ => {}
    }
    let dropped = DROP_GLUE.iter().find_map(|glue| name.strip_prefix(glue));
    let owner = dropped
        .and_then(of_type)
        .or_else(|| of_method(name))
        .or_else(|| of_type(name));
    match owner {
        Some("core" | "alloc" | "std" | "__rustc" | "compiler_builtins") => STANDARD,
        Some(name) if name.starts_with("wasmtime") => WASMTIME,
        Some(name) => name,
        None if name.starts_with("wasmtime") => WASMTIME,
        None if name.trim_start_matches('_').starts_with("mi_") => ALLOCATOR,
        None if name.starts_with("__rust") || name.starts_with("rust_") => STANDARD,
        None => OTHER,
    }
}

/// The crate of a method, by a name such as `<A as B>::c`.
fn of_method(name: &str) -> Option<&str> {
    let inner = name.strip_prefix('<')?;
    let mut depth = 0_usize;
    let mut before = 0;
    for (place, character) in inner.char_indices() {
        match character {
            '<' | '(' | '[' => depth += 1,
            // The end of an arrow, as in `dyn Fn() -> T`.
            '>' if before == b'-' => {}
            '>' if depth == 0 => return of_type(inner),
            '>' | ')' | ']' => depth = depth.saturating_sub(1),
            ' ' if depth == 0 && inner[place..].starts_with(" as ") => {
                return of_type(inner).or_else(|| of_type(&inner[place + 4..]));
            }
            _ => {}
        }
        before = character.try_into().unwrap_or(0);
    }
    of_type(inner)
}

/// The crate of a path or of a type: what stands before its first `::`, unless it has none.
fn of_type(mut name: &str) -> Option<&str> {
    const BEFORE: [&str; 9] = [
        "&", "*const ", "*mut ", "mut ", "dyn ", "impl ", "(", "[", "<",
    ];
    while let Some(rest) = BEFORE.iter().find_map(|word| name.strip_prefix(word)) {
        name = rest;
    }
    let is_part = |character: char| character == '_' || character.is_alphanumeric();
    let end = name.find(|character| !is_part(character))?;
    let (first, rest) = name.split_at(end);
    (rest.starts_with("::") && !first.is_empty()).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "/bin/host";

    fn owner(name: &str) -> &str {
        let object = PROGRAM;
        of(Function { object, name }, PROGRAM)
    }

    #[test]
    fn a_path_begins_with_its_crate() {
        assert_eq!(owner("tidegate::turn::run::{{closure}}"), "tidegate");
        assert_eq!(owner("tidegate_core::patch::diff"), "tidegate_core");
        assert_eq!(
            owner("serde_json::de::<impl a::B for c::D>::e"),
            "serde_json"
        );
    }

    #[test]
    fn a_method_belongs_to_its_type() {
        let method = "<tidegate::ws::Frame as serde::ser::Serialize>::serialize";
        assert_eq!(owner(method), "tidegate");
        let behind = "<&mut serde_json::Serializer<W,F> as serde::Serializer>::serialize_map";
        assert_eq!(owner(behind), "serde_json");
        assert_eq!(owner("<tokio::task::Core<T,S>>::poll"), "tokio");
        assert_eq!(owner("<(hyper::A, B) as c::D>::e"), "hyper");
        assert_eq!(
            owner("<dyn tidegate::A as core::any::Any>::type_id"),
            "tidegate"
        );
    }

    #[test]
    fn a_method_of_any_type_belongs_to_its_trait() {
        assert_eq!(
            owner("<T as futures_util::FutureExt>::poll_unpin"),
            "futures_util"
        );
        assert_eq!(owner("<&T as core::fmt::Debug>::fmt"), "std");
        assert_eq!(owner("<F as tower::Service<Vec<a::B> >>::call"), "tower");
        assert_eq!(owner("<fn() -> T as tower::Layer>::layer"), "tower");
    }

    #[test]
    fn glue_belongs_to_what_it_drops() {
        assert_eq!(
            owner("core::ptr::drop_in_place<tidegate::turn::Stage>"),
            "tidegate"
        );
        assert_eq!(owner("core::ptr::drop_in_place::<[tokio::A; 3]>"), "tokio");
        assert_eq!(
            owner("core::ptr::drop_in_place<alloc::vec::Vec<tokio::A>>"),
            "std"
        );
        assert_eq!(owner("core::ptr::drop_in_place<[u8]>"), "std");
    }

    #[test]
    fn parts_of_one_thing_count_together() {
        assert_eq!(owner("alloc::raw_vec::finish_grow"), "std");
        assert_eq!(owner("__rustc::__rust_alloc"), "std");
        assert_eq!(owner("wasmtime_internal_core::alloc::f"), "wasmtime");
        assert_eq!(owner("wasmtime_fiber_switch_48_0_0"), "wasmtime");
        assert_eq!(owner("mi_malloc_aligned"), "mimalloc");
        assert_eq!(owner("_mi_page_retire"), "mimalloc");
        assert_eq!(owner("__mi_stat_decrease"), "mimalloc");
    }

    #[test]
    fn what_is_not_of_the_program_goes_by_where_it_is_from() {
        let elsewhere = |object, name| of(Function { object, name }, PROGRAM);
        let copy = "__memcpy_avx_unaligned_erms";
        assert_eq!(elsewhere("/usr/lib/libc.so.6", copy), "libc");
        assert_eq!(elsewhere("???", "0x000000000a51bd40"), GUEST);
        assert_eq!(owner("0x00000000001d0a40"), "unknown");
    }
}
