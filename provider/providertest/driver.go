package providertest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/secrets-store-csi-driver/pkg/util/fileutil"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/auth"
)

// Volume is one CSI volume of a pod: the driver's knowledge in a call of Mount.
type Volume struct {
	Pod        auth.Pod
	Class      string            // name of the SecretProviderClass
	Parameters map[string]string // of the class, overwritten by the pod's volumeAttributes
	Tokens     map[string]string // service account tokens by audience
}

// Attributes are the attributes of the MountRequest for v.
func (v Volume) Attributes() (string, error) {
	attributes := map[string]string{
		"csi.storage.k8s.io/pod.name":            v.Pod.Name,
		"csi.storage.k8s.io/pod.namespace":       v.Pod.Namespace,
		"csi.storage.k8s.io/pod.uid":             v.Pod.UID,
		"csi.storage.k8s.io/serviceAccount.name": v.Pod.ServiceAccount,
		"csi.storage.k8s.io/ephemeral":           "true",
		"secretProviderClass":                    v.Class,
	}
	maps.Copy(attributes, v.Parameters)
	if v.Tokens != nil {
		tokens := map[string]map[string]string{}
		for audience, token := range v.Tokens {
			tokens[audience] = map[string]string{"token": token}
		}
		text, err := json.Marshal(tokens)
		if err != nil {
			return "", fmt.Errorf("encode tokens: %w", err)
		}
		attributes["csi.storage.k8s.io/serviceAccount.tokens"] = string(text)
	}
	text, err := json.Marshal(attributes)
	if err != nil {
		return "", fmt.Errorf("encode attributes: %w", err)
	}
	return string(text), nil
}

// Driver calls a provider the way the Secrets Store CSI driver does, with the same limits
// on the answer.
type Driver struct {
	connection *grpc.ClientConn
	client     v1alpha1.CSIDriverProviderClient
}

// Dial connects to a provider's socket, at the latest with the first call. An option
// may say how.
func Dial(socket string, options ...grpc.DialOption) (*Driver, error) {
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)
	connection, err := grpc.NewClient("unix://"+socket, options...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", socket, err)
	}
	return &Driver{connection: connection, client: v1alpha1.NewCSIDriverProviderClient(connection)}, nil
}

// Close ends the connection.
func (d *Driver) Close() error {
	if err := d.connection.Close(); err != nil {
		return fmt.Errorf("close the connection: %w", err)
	}
	return nil
}

// Version asks the provider for its name and version.
func (d *Driver) Version(ctx context.Context) (*v1alpha1.VersionResponse, error) {
	return d.client.Version(ctx, &v1alpha1.VersionRequest{Version: "v1alpha1"}) //nolint:wrapcheck // callers look at the status
}

// Call sends attributes as they are and returns the provider's answer, whose
// error carries the gRPC status.
func (d *Driver) Call(ctx context.Context, attributes string) (*v1alpha1.MountResponse, error) {
	return d.client.Mount(ctx, &v1alpha1.MountRequest{Attributes: attributes, Secrets: "null", Permission: "420"}) //nolint:wrapcheck // callers look at the status
}

// Mount asks for v's files, writes them into the folder target with the driver's
// own atomic writer, and returns the version of each file.
func (d *Driver) Mount(ctx context.Context, v Volume, target string) (map[string]string, error) {
	attributes, err := v.Attributes()
	if err != nil {
		return nil, err
	}
	response, err := d.Call(ctx, attributes)
	if err != nil {
		return nil, err
	}
	if err := fileutil.WritePayloads(target, response.GetFiles()); err != nil {
		return nil, fmt.Errorf("write files into %s: %w", target, err)
	}
	versions := map[string]string{}
	for _, v := range response.GetObjectVersion() {
		versions[v.GetId()] = v.GetVersion()
	}
	return versions, nil
}
