// Command dno-oracle-listwise serves the oracle to dno.
package main

import "github.com/dno-project/dno/sdk/serve"

func main() { serve.Oracle(New()) }
