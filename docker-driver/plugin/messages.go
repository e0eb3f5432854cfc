package plugin

// The requests and responses of Docker's network and IPAM plugin API.
// Source: libnetwork's docs/remote.md and docs/ipam.md, and drivers/remote/api and ipams/remote/api of the engine.

// ErrorResponse is the response of a failed call. Engines read Err from a network driver, and Error from an IPAM driver.
type ErrorResponse struct {
	Err   string
	Error string
}

// Empty is a request or a response without content.
type Empty struct{}

// ActivateResponse lists the plugin types of a socket.
type ActivateResponse struct {
	Implements []string
}

// NetworkCapabilities is the response of NetworkDriver.GetCapabilities.
type NetworkCapabilities struct {
	Scope             string
	ConnectivityScope string
	GwAllocChecker    bool
}

// GwAllocCheckResponse says for which families the engine allocates no gateway address.
type GwAllocCheckResponse struct {
	SkipIPv4 bool
	SkipIPv6 bool
}

// PoolData is one pool of a network in CreateNetwork.
type PoolData struct {
	AddressSpace string
	Pool         string
	Gateway      string
	AuxAddresses map[string]string
}

// CreateNetworkRequest creates a network.
type CreateNetworkRequest struct {
	NetworkID string
	Options   map[string]any
	IPv4Data  []PoolData
	IPv6Data  []PoolData
}

// NetworkRequest identifies a network.
type NetworkRequest struct {
	NetworkID string
}

// EndpointRequest identifies an endpoint of a network.
type EndpointRequest struct {
	NetworkID  string
	EndpointID string
}

// Interface holds an endpoint's addresses: those that the engine supplies, or those that the driver adds.
type Interface struct {
	Address     string `json:",omitempty"`
	AddressIPv6 string `json:",omitempty"`
	MacAddress  string `json:",omitempty"`
}

// CreateEndpointRequest creates an endpoint.
type CreateEndpointRequest struct {
	NetworkID  string
	EndpointID string
	Interface  *Interface
	Options    map[string]any
}

// CreateEndpointResponse holds the fields that are empty in the request's interface.
type CreateEndpointResponse struct {
	Interface *Interface
}

// EndpointInfoResponse is the response of NetworkDriver.EndpointOperInfo.
type EndpointInfoResponse struct {
	Value map[string]any
}

// JoinRequest connects an endpoint to a container's sandbox.
type JoinRequest struct {
	NetworkID  string
	EndpointID string
	SandboxKey string
	Options    map[string]any
}

// InterfaceName is the interface that the engine moves into the container, and the prefix of its name there.
type InterfaceName struct {
	SrcName   string
	DstPrefix string
}

// Route types of a StaticRoute.
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

// JoinResponse is the configuration that the engine applies in the sandbox.
type JoinResponse struct {
	InterfaceName         InterfaceName
	Gateway               string        `json:",omitempty"`
	GatewayIPv6           string        `json:",omitempty"`
	StaticRoutes          []StaticRoute `json:",omitempty"`
	DisableGatewayService bool
}

// ExternalConnectivityRequest publishes a container's ports.
type ExternalConnectivityRequest struct {
	NetworkID  string
	EndpointID string
	Options    ExternalConnectivityOptions
}

// ExternalConnectivityOptions are the sandbox's options for published ports.
type ExternalConnectivityOptions struct {
	PortMap []PortBinding `json:"com.docker.network.portmap"`
}

// PortBinding is one published port. Proto is the IP protocol number.
type PortBinding struct {
	Proto       uint8
	IP          string
	Port        uint16
	HostIP      string
	HostPort    uint16
	HostPortEnd uint16
}

// IpamCapabilities is the response of IpamDriver.GetCapabilities.
type IpamCapabilities struct {
	RequiresMACAddress    bool
	RequiresRequestReplay bool
}

// AddressSpaces is the response of IpamDriver.GetDefaultAddressSpaces.
type AddressSpaces struct {
	LocalDefaultAddressSpace  string
	GlobalDefaultAddressSpace string
}

// RequestPoolRequest requests the pool of a new network.
type RequestPoolRequest struct {
	AddressSpace string
	Pool         string
	SubPool      string
	Options      map[string]string
	V6           bool
}

// RequestPoolResponse identifies the pool.
type RequestPoolResponse struct {
	PoolID string
	Pool   string
	Data   map[string]string
}

// ReleasePoolRequest releases a pool.
type ReleasePoolRequest struct {
	PoolID string
}

// RequestAddressRequest requests the next free address, or the given one.
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

// ReleaseAddressRequest releases an address.
type ReleaseAddressRequest struct {
	PoolID  string
	Address string
}

// Keys of Docker's options and data.
const (
	OptionGeneric  = "com.docker.network.generic"
	OptionInternal = "com.docker.network.internal"
	OptionMTU      = "com.docker.network.driver.mtu"
	DataGateway    = "com.docker.network.gateway"
	RequestType    = "RequestAddressType"
	TypeGateway    = "com.docker.network.gateway"
)
