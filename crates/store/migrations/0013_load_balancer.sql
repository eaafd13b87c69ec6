-- A tunnel's load balancer address may be chosen: it is unique at its location.
CREATE UNIQUE INDEX ipsec_tunnel_load_balancer ON ipsec_tunnel (location, load_balancer_ip) WHERE status <> 'DELETED';
