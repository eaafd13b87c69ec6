//! Events, on a connection of their own.

use std::{path::Path, time::Duration};

use tokio::time::timeout;

use crate::{
    Error, Message,
    packet::{Connection, Incoming, OUT_OF_TURN},
};

/// Of all registrations together: charon confirms one in well under a millisecond, and as late as it answers a request.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(90);

/// A subscription. charon queues events, so the subscriber must receive them.
#[derive(Debug)]
pub struct Events {
    connection: Connection,
}

impl Events {
    /// Subscribes to `names` (`ike-updown`, `child-updown`, `log`, …) at the socket at `path`.
    ///
    /// # Errors
    /// [`Error::Unknown`] for an event that this charon does not have; see [`Error`] for the others.
    pub async fn subscribe(path: &Path, names: &[&str]) -> Result<Self, Error> {
        let mut connection = Connection::open(path).await?;
        let register = async {
            for name in names {
                connection.register(name).await?;
            }
            Ok(())
        };
        timeout(SUBSCRIBE_TIMEOUT, register)
            .await
            .map_err(|_| Error::Timeout("a subscription".to_owned()))??;
        Ok(Self { connection })
    }

    /// The next event and its name. Waits without a limit. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Closed`] when the daemon has ended. After any error the subscription cannot be used.
    pub async fn receive(&mut self) -> Result<(String, Message), Error> {
        match self.connection.receive().await? {
            Incoming::Event(name, message) => Ok((name, message)),
            _ => Err(OUT_OF_TURN),
        }
    }
}
