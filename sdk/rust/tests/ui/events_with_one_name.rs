use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {
    names: Vec<String>,
}

#[derive(Event)]
enum RoomEvent {
    Added,
}

#[derive(Event)]
enum NameEvent {
    Added { name: String },
}

#[actor(events(RoomEvent, NameEvent))]
impl Room {}

fn main() {}
