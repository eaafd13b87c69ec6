//! A reset of a tunnel's SAs on request.

use crate::declare::serde_as_text;

crate::text_enum!(
    /// Which SAs.
    ResetScope {
        /// The IKE SA, and with it its CHILD SAs.
        Ike = "ike",
        /// The CHILD SAs.
        Child = "child",
    }
);
crate::text_enum!(
    /// What is done with them.
    ResetMode {
        /// They get new keys, without an interruption.
        Rekey = "rekey",
        /// They are ended, and a gateway that initiates starts them again.
        Restart = "restart",
    }
);
serde_as_text!(ResetScope, ResetMode);
