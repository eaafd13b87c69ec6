// The command that starts an agent with an enrolment code.
import type { Schemas } from '../api/client';

/** As `wicketgate agent enroll` prints it. The code is no argument, which every user of the host could read; the space before it keeps it out of the shell's history. */
export function enrolmentCommand(enrollment: Schemas['Enrollment']): string {
  return ` echo ${enrollment.enrollmentCode} |
  wicketgate-agent start --server ${enrollment.agentServer ?? 'https://GATEWAY:8443'} \\
  --enrollment-token-file /dev/stdin --state-dir ./agent-state`;
}
