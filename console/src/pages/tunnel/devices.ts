// The formats in which the API has a tunnel's configuration, by the device that reads them.
import type { paths } from '../../generated/api';

type Query = NonNullable<paths['/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/vpn-config']['get']['parameters']['query']>;
export type Format = NonNullable<Query['format']>;

export interface Device {
  format: Format;
  title: string;
  extension: string;
  /** What to do with the file. */
  use: string;
}

export const DEVICES: Device[] = [
  { format: 'strongswan', title: 'strongSwan (swanctl.conf)', extension: 'conf', use: 'Put the file in /etc/swanctl/conf.d/, readable by root only, and run swanctl --load-all.' },
  { format: 'libreswan', title: 'Libreswan (ipsec.conf)', extension: 'conf', use: 'Put the file in /etc/ipsec.d/, and its last line in a file there that ends in .secrets.' },
  { format: 'cisco-ios', title: 'Cisco IOS XE', extension: 'txt', use: 'Paste the file in configuration mode. Choose another number if Tunnel100 is taken.' },
  { format: 'cisco-asa', title: 'Cisco ASA', extension: 'txt', use: 'Paste the file in configuration mode, with your names of the interfaces and of the crypto map.' },
  { format: 'fortinet', title: 'FortiGate (FortiOS)', extension: 'txt', use: 'Paste the file into the console, with your interfaces instead of wan1 and internal.' },
  { format: 'paloalto', title: 'Palo Alto Networks (PAN-OS)', extension: 'txt', use: 'Paste the file in configuration mode without its first lines, and commit. Add a security policy from the inside zone to vpn.' },
  { format: 'juniper', title: 'Juniper SRX (Junos OS)', extension: 'txt', use: 'Give the file to load set terminal in configuration mode, and commit. Add a policy from the inside zone to vpn.' },
  { format: 'mikrotik', title: 'MikroTik (RouterOS)', extension: 'rsc', use: 'Paste the file into a terminal. Move its rule of the chain srcnat in front of your rules that translate addresses.' },
  { format: 'pfsense', title: 'pfSense (config.xml)', extension: 'xml', use: 'Add the elements phase1 and phase2 to a backup of the area IPsec, and restore that. The file alone would replace every other tunnel.' },
  { format: 'vyos', title: 'VyOS', extension: 'txt', use: 'Paste the file in configuration mode with your interfaces instead of eth0 and eth1, commit, and save.' },
  { format: 'aws', title: 'Amazon Web Services', extension: 'sh', use: 'Run the commands of aws ec2, and set peerPublicIp to an outside address of AWS afterwards.' },
  { format: 'json', title: 'JSON, for programs', extension: 'json', use: 'Contains every value that a device needs.' },
];

export function deviceOf(format: string | undefined): Device {
  return DEVICES.find((device) => device.format === format) ?? DEVICES[0]!;
}
