//! Writes a hostile component to standard output, for trying a host by hand:
//!
//! ```sh
//! cargo run -p tidegate-guests --example hostile -- many-functions 500000 > many.wasm
//! tidegate describe many.wasm
//! ```

use std::io::Write;

use tidegate_guests::hostile;

/// Makes a component of one kind and this size.
type Make = fn(usize) -> Vec<u8>;

/// The kinds, and what the number means.
const KINDS: [(&str, Make); 11] = [
    ("many-functions", hostile::many_functions),
    ("long-function", hostile::long_function),
    ("many-components", hostile::many_components),
    ("deep-components", hostile::deep_components),
    ("doubling-components", hostile::doubling_components),
    ("many-exports", hostile::many_exports),
    ("foreign", hostile::foreign),
    ("filled-by-a-call", hostile::filled_by_a_call),
    ("filled-at-the-start", hostile::filled_at_the_start),
    ("filled-by-sparse-data", hostile::filled_by_sparse_data),
    ("filled-table", hostile::filled_table),
];

fn main() {
    let mut words = std::env::args().skip(1);
    let (kind, number) = (words.next(), words.next());
    let kind = KINDS
        .iter()
        .find(|(name, _)| Some(*name) == kind.as_deref());
    let number = number.and_then(|number| number.parse().ok());
    let Some(((_, make), number)) = kind.zip(number) else {
        let kinds = KINDS.map(|(name, _)| name).join("|");
        eprintln!("hostile: expected {kinds} and a number");
        std::process::exit(2);
    };
    if let Err(error) = std::io::stdout().write_all(&make(number)) {
        eprintln!("hostile: {error}");
        std::process::exit(1);
    }
}
