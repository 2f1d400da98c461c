use tidegate_sdk::prelude::*;

#[derive(Failure)]
enum NoPrefix {
    Full,
}

#[derive(Failure)]
#[failure(prefix = "Room Service")]
enum BadPrefix {
    Full,
}

#[derive(Failure)]
#[failure(prefix = "room")]
enum Tuple {
    Full(usize),
}

#[derive(Failure)]
#[failure(prefix = "room")]
enum Status {
    #[failure(status = 200)]
    Full,
}

#[derive(Failure)]
#[failure(prefix = "room")]
enum Misspelt {
    #[failure(massage = "full")]
    Full,
}

fn main() {}
