use tidegate_sdk::prelude::*;

#[derive(Event)]
enum Pair {
    Moved(String, String),
}

#[derive(Event)]
enum Twice {
    Moved,
    #[event(name = "moved")]
    Shifted,
}

#[derive(Event)]
enum Generic<T> {
    Moved(T),
}

#[derive(Event)]
enum Nothing {}

#[derive(Event)]
enum Misspelt {
    #[event(nmae = "moved")]
    Moved,
}

fn main() {}
