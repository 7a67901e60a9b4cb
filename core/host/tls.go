package host

import (
	"crypto/tls"
	"encoding/pem"

	"github.com/dno-project/dno/sdk/wire"
)

// mutualTLS returns the host's side of one plugin's connection and the certificate, as PEM, that the
// plugin reads from [wire.CertificateEnv]; go-plugin completes it with the plugin's own from the handshake.
func mutualTLS() (config *tls.Config, certificate string, err error) {
	cert, err := wire.Certificate()
	if err != nil {
		return nil, "", err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert},
		ClientAuth:   tls.RequireAndVerifyClientCert, // of a sampler that calls the host's generator
		MinVersion:   tls.VersionTLS12,
		ServerName:   "localhost",
	}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})), nil
}
