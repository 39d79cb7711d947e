//! The domain's ports that need nothing but the operating system: time, randomness, password hashing, the head file.

mod clock;
mod entropy;
mod heads;
mod passwords;

pub use clock::SystemClock;
pub use entropy::OsEntropy;
pub use heads::FileHeads;
pub use passwords::{Argon2Hasher, Cost};
