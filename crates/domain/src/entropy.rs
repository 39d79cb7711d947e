//! Randomness is a port, so that nothing in the domain draws a number of its own.

/// A source of unpredictable bytes.
pub trait Entropy: Send + Sync {
    /// 32 bytes from a cryptographically secure source. MUST never repeat.
    fn bytes(&self) -> [u8; 32];
}
