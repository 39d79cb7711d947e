//! The domain's ports that need nothing but the operating system: randomness, password hashing, the head file. Time is
//! told by the agent's clock ([`starlink_agent::agent::SystemClock`]), as on every machine.

mod entropy;
mod heads;
mod passwords;

pub use entropy::OsEntropy;
pub use heads::FileHeads;
pub use passwords::{Argon2Hasher, Cost};
