use tidegate_sdk::prelude::*;

struct Opaque;

#[derive(Failure)]
#[failure(prefix = "room")]
enum Field {
    #[failure(message = "all {seats} seats are taken")]
    Full { chairs: usize },
    Param { opaque: Opaque },
}

fn main() {}
