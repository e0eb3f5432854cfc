package plugin

// The requests and responses of Docker's network and IPAM plugin API, as the engine writes and reads them.
// Source: libnetwork's docs/remote.md and docs/ipam.md, and drivers/remote/api and ipams/remote/api of the engine.

// ErrorResponse is the answer to a call that was refused. Engines read Err in a network driver's answer, and Error in
// an IPAM driver's.
type ErrorResponse struct {
	Err   string
	Error string
}

// Empty is a request or a response without content.
type Empty struct{}

// ActivateResponse tells which plugin types stand behind a socket.
type ActivateResponse struct {
	Implements []string
}

// NetworkCapabilities is the answer to NetworkDriver.GetCapabilities.
type NetworkCapabilities struct {
	Scope             string
	ConnectivityScope string
	GwAllocChecker    bool
}

// GwAllocCheckResponse tells an engine that no gateway address is wanted.
type GwAllocCheckResponse struct {
	SkipIPv4 bool
	SkipIPv6 bool
}

// PoolData is one address pool of a network as CreateNetwork gets it.
type PoolData struct {
	AddressSpace string
	Pool         string
	Gateway      string
	AuxAddresses map[string]string
}

// CreateNetworkRequest asks for a network.
type CreateNetworkRequest struct {
	NetworkID string
	Options   map[string]any
	IPv4Data  []PoolData
	IPv6Data  []PoolData
}

// NetworkRequest names a network.
type NetworkRequest struct {
	NetworkID string
}

// EndpointRequest names an endpoint of a network.
type EndpointRequest struct {
	NetworkID  string
	EndpointID string
}

// Interface is an endpoint's addresses: what the engine supplies, or what the driver adds.
type Interface struct {
	Address     string `json:",omitempty"`
	AddressIPv6 string `json:",omitempty"`
	MacAddress  string `json:",omitempty"`
}

// CreateEndpointRequest asks for an endpoint.
type CreateEndpointRequest struct {
	NetworkID  string
	EndpointID string
	Interface  *Interface
	Options    map[string]any
}

// CreateEndpointResponse holds the fields of the interface that the request left empty.
type CreateEndpointResponse struct {
	Interface *Interface
}

// EndpointInfoResponse is what a driver has to say of an endpoint.
type EndpointInfoResponse struct {
	Value map[string]any
}

// JoinRequest asks to bring an endpoint into a container.
type JoinRequest struct {
	NetworkID  string
	EndpointID string
	SandboxKey string
	Options    map[string]any
}

// InterfaceName says which interface the engine moves into the container, and what its name starts with there.
type InterfaceName struct {
	SrcName   string
	DstPrefix string
}

// The kinds of a StaticRoute.
const (
	RouteNextHop   = 0
	RouteConnected = 1
)

// StaticRoute is a route inside the container.
type StaticRoute struct {
	Destination string
	RouteType   int
	NextHop     string `json:",omitempty"`
}

// JoinResponse tells the engine what to set up in the container.
type JoinResponse struct {
	InterfaceName         InterfaceName
	Gateway               string        `json:",omitempty"`
	GatewayIPv6           string        `json:",omitempty"`
	StaticRoutes          []StaticRoute `json:",omitempty"`
	DisableGatewayService bool
}

// ExternalConnectivityRequest asks to publish a container's ports.
type ExternalConnectivityRequest struct {
	NetworkID  string
	EndpointID string
	Options    ExternalConnectivityOptions
}

// ExternalConnectivityOptions are the sandbox's labels that concern publishing.
type ExternalConnectivityOptions struct {
	PortMap []PortBinding `json:"com.docker.network.portmap"`
}

// PortBinding is one published port; Proto is the protocol's number in IP.
type PortBinding struct {
	Proto       uint8
	IP          string
	Port        uint16
	HostIP      string
	HostPort    uint16
	HostPortEnd uint16
}

// IpamCapabilities is the answer to IpamDriver.GetCapabilities.
type IpamCapabilities struct {
	RequiresMACAddress    bool
	RequiresRequestReplay bool
}

// AddressSpaces is the answer to IpamDriver.GetDefaultAddressSpaces.
type AddressSpaces struct {
	LocalDefaultAddressSpace  string
	GlobalDefaultAddressSpace string
}

// RequestPoolRequest asks for the pool of a new network.
type RequestPoolRequest struct {
	AddressSpace string
	Pool         string
	SubPool      string
	Options      map[string]string
	V6           bool
}

// RequestPoolResponse names the pool.
type RequestPoolResponse struct {
	PoolID string
	Pool   string
	Data   map[string]string
}

// ReleasePoolRequest gives a pool back.
type ReleasePoolRequest struct {
	PoolID string
}

// RequestAddressRequest asks for one address, or a certain one.
type RequestAddressRequest struct {
	PoolID  string
	Address string
	Options map[string]string
}

// RequestAddressResponse holds the address with its prefix length.
type RequestAddressResponse struct {
	Address string
	Data    map[string]string
}

// ReleaseAddressRequest gives an address back.
type ReleaseAddressRequest struct {
	PoolID  string
	Address string
}

// The keys of Docker's own options and data.
const (
	OptionGeneric  = "com.docker.network.generic"
	OptionInternal = "com.docker.network.internal"
	OptionMTU      = "com.docker.network.driver.mtu"
	DataGateway    = "com.docker.network.gateway"
	RequestType    = "RequestAddressType"
	TypeGateway    = "com.docker.network.gateway"
)
