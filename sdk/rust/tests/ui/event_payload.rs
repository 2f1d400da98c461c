use tidegate_sdk::prelude::*;

struct Opaque;

#[derive(Event)]
enum NotJson {
    Whole(Opaque),
}

fn main() {}
