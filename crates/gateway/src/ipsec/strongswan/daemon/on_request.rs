//! What is done to the peer's SAs on request: resets, and the end of SAs whose key was changed with a cut.

use std::fs;

use tokio::time::Instant;
use tracing::{info, warn};
use wicketgate_model::{Generation, ResetMode, ResetScope};
use wicketgate_system::private_file::replace;
use wicketgate_vici::{Client, Error};

use super::{Task, orders::ResetDone, reset::Reset};
use crate::ipsec::strongswan::conf::{CharonConfig, end, rekey};

/// The generation whose cut has been made. Beside the daemon, which outlives this process.
const CUT: &str = "cut";

impl Task {
    /// Begins a reset. Its outcome is judged at each look.
    pub(super) async fn begin_reset(
        &mut self,
        (scope, mode, done): (ResetScope, ResetMode, ResetDone),
        pid: i32,
        client: &mut Client,
    ) -> Result<(), Error> {
        match self.try_reset((scope, mode), pid, client).await {
            Ok(Ok(reset)) => self.reset = Some((reset, done)),
            Ok(Err(refused)) => drop(done.send(Err(refused))),
            Err(error) => {
                let _ = done.send(Err(format!("the gateway's IKE daemon has not answered: {error}")));
                return Err(error);
            }
        }
        Ok(())
    }

    /// The reset that has begun, or why none has.
    async fn try_reset(
        &mut self,
        (scope, mode): (ResetScope, ResetMode),
        pid: i32,
        client: &mut Client,
    ) -> Result<Result<Reset, String>, Error> {
        if self.reset.is_some() {
            return Ok(Err("another reset of the tunnel is in progress: wait for its outcome".to_owned()));
        }
        self.look(pid, client).await?;
        let initiates = self.wanted.as_ref().is_some_and(|wanted| wanted.initiate);
        let (connection, ids) = (self.view.connection(), self.view.shown_ids());
        let reset = Reset::new((scope, mode), initiates, connection, ids, Instant::now());
        if !reset.has_subject() {
            return Ok(Err(format!("{} does not exist: the site's device is not connected", reset.what())));
        }
        let begun = match mode {
            ResetMode::Rekey => self.answered(pid, rekey(client, scope)).await,
            ResetMode::Restart => self.answered(pid, end(client, scope)).await,
        };
        match begun {
            Ok(()) => {}
            Err(Error::Failed { message, .. }) => {
                return Ok(Err(format!("{} was not rekeyed: {message}", reset.what())));
            }
            Err(error) => return Err(error),
        }
        if mode == ResetMode::Restart && initiates {
            self.initiation.at = Some(Instant::now());
        }
        Ok(Ok(reset))
    }

    /// Reports the outcome of the reset, once it is seen.
    pub(super) fn judge_reset(&mut self) {
        let (connection, ids) = (self.view.connection(), self.view.shown_ids());
        let outcome =
            self.reset.as_ref().and_then(|(reset, _)| reset.outcome(connection, ids, Instant::now()));
        if let Some(outcome) = outcome {
            self.end_reset(outcome);
        }
    }

    pub(super) fn end_reset(&mut self, outcome: Result<String, String>) {
        if let Some((_, done)) = self.reset.take() {
            let _ = done.send(outcome);
        }
    }

    /// Ends the SAs of before the last cut, once.
    pub(super) async fn cut(
        &mut self,
        pid: i32,
        client: &mut Client,
        wanted: &CharonConfig,
    ) -> Result<(), Error> {
        let Some(cut) = wanted.cut.map(Generation::get) else { return Ok(()) };
        let file = self.home.dir.join(CUT);
        let made = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u64>().ok());
        if made.is_some_and(|made| made >= cut) {
            return Ok(());
        }
        self.answered(pid, end(client, ResetScope::Ike)).await?;
        let dir = self.home.dir.display();
        info!(%dir, "SAs of older keys are ended");
        if let Err(error) = replace(&file, cut.to_string().as_bytes()) {
            warn!(%dir, %error, "cannot record that SAs were cut: they are cut again after a restart");
        }
        Ok(())
    }
}
