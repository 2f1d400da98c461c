use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {
    names: Vec<String>,
}

#[derive(Event)]
enum RoomEvent {
    Added { name: String },
}

#[actor]
impl Room {
    pub fn add(&mut self, ctx: &mut Context<Self>, name: String) {
        ctx.emit(RoomEvent::Added { name });
    }
}

fn main() {}
