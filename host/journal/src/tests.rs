mod crashes;
mod model;
mod opening;
mod use_of;
